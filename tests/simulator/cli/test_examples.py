"""The scenarios that come along, and the page that explains their knobs."""

from pathlib import Path

import msgspec
import pytest

from simulator.backend import CostModel
from simulator.scenario import load, scenario_folder, scenario_names
from simulator.spec.access import MIXTURES, NAT_KINDS, Mixture
from simulator.spec.faults import BadWeather, ClockSkew, Crash, NatReboot, Partition, RandomFaults, Roam, SlowNode
from simulator.spec.load import AskSpec, Models, Requests
from simulator.spec.population import Churn, Population
from simulator.spec.reading import read_toml
from simulator.spec.world_spec import RelaySpec, WorldSpec
from simulator.spec.writing import toml_of
from tests.simulator.cli.calling import call

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "simulator.md"


def test_every_scenario_loads_under_its_own_name() -> None:
    for name in scenario_names():
        assert load(name).name == name


def test_the_home_network_passes_over_lan_and_relay() -> None:
    paths: set[str] = set()
    for seed in (1, 2):
        result = call("run", "home_network", "--seed", seed, "--json")
        assert result.exit_code == 0, result.output
        paths |= msgspec.json.decode(result.output)["requests"]["served_by_path"].keys()
    assert paths == {"local", "lan", "relay"}


def test_the_village_has_a_hundred_nodes_and_passes_with_all_its_faults() -> None:
    spec = load("village").spec
    assert spec is not None
    assert len(spec.node_names) == 100
    assert {type(fault) for fault in spec.faults} == {
        *(Crash, Partition, NatReboot, BadWeather, SlowNode, Roam),
    }
    result = call("run", "village", "--seed", 1, "--fidelity", "message", "--json")
    assert result.exit_code == 0, result.output
    assert msgspec.json.decode(result.output)["hosts_crashed"] >= 2


@pytest.mark.parametrize("path", sorted(scenario_folder().glob("*.toml")), ids=lambda path: path.stem)
def test_what_results_keep_of_a_description_is_the_same_description(path: Path, tmp_path: Path) -> None:
    spec = read_toml(path)
    kept = tmp_path / "scenario.toml"
    kept.write_text(toml_of(spec))
    assert read_toml(kept) == spec


@pytest.mark.parametrize(
    "kind",
    [
        *(WorldSpec, RelaySpec, Population, Churn, CostModel, Mixture, Models, Requests, AskSpec),
        *(RandomFaults, Crash, Partition, NatReboot, BadWeather, SlowNode, ClockSkew, Roam),
    ],
)
def test_the_page_names_every_knob(kind: type[msgspec.Struct]) -> None:
    text = PAGE.read_text()
    # The bugs that tests plant are nobody's knob.
    for field in msgspec.structs.fields(kind):
        assert f"`{field.name}`" in text or f"{field.name} = " in text or field.name == "planted"


def test_the_page_names_every_mixture_kind_of_nat_and_line() -> None:
    from simulator.net.weather import LINES

    text = PAGE.read_text()
    for name in (*MIXTURES, *NAT_KINDS, *LINES):
        assert f"`{name}`" in text
