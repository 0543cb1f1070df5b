"""Profiles of real NATs in simulated worlds."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simulator.cli import main
from simulator.spec.access import HOME, NAT_KINDS, Mixture
from simulator.spec.profile import Gateway, Profile, Seen, read_profile
from simulator.spec.reading import SpecError
from teale_proto.nat.kinds import Filtering, Mapping


def words(kind: Mapping | Filtering) -> str:
    return kind.name.lower().replace("_", "-")


@pytest.mark.parametrize("mapping", Mapping)
@pytest.mark.parametrize("filtering", Filtering)
def test_every_profile_is_one_of_the_kinds_and_none_promises_more_than_was_seen(
    mapping: Mapping, filtering: Filtering
) -> None:
    seen = Seen(translated=True, mapping=words(mapping), filtering=words(filtering))
    kind = NAT_KINDS[Profile(seen).kind]
    assert kind is not None
    assert kind.mapping is mapping
    assert kind.filtering >= filtering


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (Seen(translated=False, filtering="endpoint-independent"), "public"),
        (Seen(translated=False, filtering="address-dependent"), "firewall"),
        (Seen(translated=False), "firewall"),
        (Seen(translated=True), "eim-apdf"),
        (Seen(translated=True, mapping="address-and-port-dependent"), "apdm-apdf"),
    ],
)
def test_what_was_not_seen_is_as_with_most_routers(seen: Seen, kind: str) -> None:
    assert Profile(seen).kind == kind


def test_an_access_is_a_mixture_of_one() -> None:
    profile = Profile(Seen(udp_blocked=True, translated=True), Gateway("PCP"))
    access = Mixture(**profile.access(HOME))
    assert access == Mixture({"eim-apdf": 1.0}, HOME.lines, udp_blocked=1.0, port_mapping=1.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no [ipv4]"),
        ("ipv4", "not valid TOML"),
        ("[ipv4]\nmapping = 'none'", "no 'none'; there are endpoint-independent"),
        ("[ipv4]\nudp_blocked = 3", "Expected `bool`"),
    ],
)
def test_what_is_no_profile_is_refused(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text(text)
    with pytest.raises(SpecError) as refused:
        read_profile(file)
    assert why in str(refused.value)
    assert str(file) in str(refused.value)


WORLD = """
lasts = 30.0
[[populations]]
count = 3
access = "public"
"""


def test_a_run_behind_a_profile_can_be_repeated_without_its_file(tmp_path: Path) -> None:
    world, file = tmp_path / "world.toml", tmp_path / "profile.toml"
    world.write_text(WORLD)
    file.write_text('[ipv4]\ntranslated = true\nmapping = "address-and-port-dependent"\n')
    behind = CliRunner().invoke(main, ["run", str(world), "--nat", str(file), "--digest"])
    assert behind.exit_code == 0, behind.output
    access = "populations[0].access={nats = {apdm-apdf = 1.0}, lines = {fibre = 1.0}}"
    by_hand = CliRunner().invoke(main, ["run", str(world), "--set", access, "--digest"])
    without = CliRunner().invoke(main, ["run", str(world), "--digest"])
    assert behind.output == by_hand.output != without.output
    shown = CliRunner().invoke(main, ["run", str(world), "--nat", str(file), "--json"])
    assert json.loads(shown.stdout)


def test_a_profile_that_is_not_there_ends_the_command(tmp_path: Path) -> None:
    world = tmp_path / "world.toml"
    world.write_text(WORLD)
    ended = CliRunner().invoke(main, ["run", str(world), "--nat", str(tmp_path / "none.toml")])
    assert ended.exit_code != 0
    assert "none.toml: No such file or directory" in ended.output
