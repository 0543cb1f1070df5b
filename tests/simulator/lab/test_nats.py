"""Each NAT that the simulator and Linux can both be, as those see it who ask: our STUN client, and two others."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from msgspec.structs import replace

from simulator.lab.internet import Internet
from simulator.lab.routers import why_not
from simulator.nat_grid import KINDS
from simulator.net.link import Link
from simulator.net.nat import FIREWALL, Allocation, Collision, NatKind
from simulator.spec.access import NAT_KINDS
from teale_io import netcheck
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.nat.behaviour import Retransmission
from teale_proto.nat.kinds import Behaviour, Filtering, Hairpinning
from teale_proto.nat.kinds import Mapping as NatMapping
from tests.simulator.lab.talking import ANSWER_SECONDS, OTHER, SERVER, bound, gets_through, hears, seen_from

STUN_PORT = 3478
LINE = Link(latency=MILLISECOND)
EIF, ADF, APDF = Filtering
EASY = NatKind(filtering=EIF)

# What is found, and whether a hairpin works.
FOUND = """
public                public            -
firewall              firewall, APDF    -
firewall EIF          public            -
firewall ADF          firewall, ADF     -
EIM+EIF               EIM+EIF           yes
EIM+ADF               EIM+ADF           yes
EIM+APDF              EIM+APDF          yes
EIM+APDF random       EIM+APDF          yes
EIM+APDF sequential   EIM+APDF          yes
EIM+APDF overloading  EIM+APDF          yes
EIM+ADF random        EIM+ADF           yes
no hairpin            EIM+APDF          no
small table           EIM+APDF          yes
ADM+ADF               ADM+ADF           no
ADM+APDF              ADM+APDF          no
APDM+APDF             APDM+APDF         no
APDM sequential       APDM+APDF         no
carrier over home     EIM+APDF          yes
hard over easy        APDM+APDF         no
easy over hard        APDM+APDF         no
firewall over easy    EIM+APDF          yes
easy over firewall    EIM+APDF          yes
firewall twice        firewall, APDF    -
UDP blocked           UDP blocked       -
"""
STACKS: dict[str, tuple[NatKind, ...]] = {
    **KINDS,
    "firewall EIF": (NatKind(translates=False, filtering=EIF),),
    "firewall ADF": (NatKind(translates=False, filtering=ADF),),
    "EIM+APDF sequential": (NatKind(allocation=Allocation.SEQUENTIAL, step=2),),
    "EIM+APDF overloading": (NatKind(collision=Collision.OVERLOAD),),
    "EIM+ADF random": (NatKind(filtering=ADF, allocation=Allocation.RANDOM),),
    "no hairpin": (NatKind(hairpinning=Hairpinning.NONE),),
    "ADM+APDF": (NatKind(mapping=NatMapping.ADDRESS_DEPENDENT),),
    "hard over easy": (*KINDS["APDM+APDF"], EASY),
    "easy over hard": (EASY, *KINDS["APDM+APDF"]),
    "firewall over easy": (FIREWALL, EASY),
    "easy over firewall": (EASY, FIREWALL),
    "firewall twice": (FIREWALL, FIREWALL),
}
HAIRPINS = {Hairpinning.EXTERNAL_SOURCE: "yes", Hairpinning.NONE: "no", None: "-"}


@pytest.fixture(scope="module")
def town(means: None) -> Iterator[Internet]:
    """One site of each kind with a host, and a STUN server with two addresses."""
    with Internet(seed=1) as internet:
        internet.add_server("stun", (SERVER, OTHER), LINE)
        for name, nats in STACKS.items():
            internet.add_site(name, nats, LINE)
            internet.add_host(f"host {name}", name)
        internet.start()
        yield internet


@pytest.fixture(scope="module")
def stun(town: Internet) -> Iterator[None]:
    command = [*town.host("stun").prefix, sys.executable, "-m", "teale_io.relay_app", "--host", SERVER]
    options = ["--port", str(STUN_PORT), "--stun-alternate", OTHER]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen([*command, *options], stdout=pipe, stderr=null, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield
        process.kill()


@pytest.fixture(scope="module")
def found(town: Internet, stun: None) -> Mapping[str, Behaviour]:
    """What the shipping discovery finds out on each host, all of them at once."""
    patience = Retransmission(first=150 * MILLISECOND, requests=4, patience=4)

    def look(name: str) -> Behaviour:
        def check() -> netcheck.Netcheck:
            return netcheck.run([netcheck.Server(SERVER, STUN_PORT)], patience=patience)

        (family,) = town.host(f"host {name}").namespace.call(check).families
        assert family.behaviour is not None
        return family.behaviour

    with ThreadPoolExecutor(len(STACKS)) as pool:
        return dict(zip(STACKS, pool.map(look, STACKS), strict=True))


@pytest.mark.parametrize("row", FOUND.strip().splitlines(), ids=lambda row: str(row[:22].strip()))
def test_our_discovery_finds_the_nat_that_was_asked_for(row: str, found: Mapping[str, Behaviour]) -> None:
    behaviour = found[row[:22].strip()]
    assert (str(behaviour), HAIRPINS[behaviour.hairpinning]) == (row[22:40].strip(), row[40:].strip())


def test_every_kind_of_the_simulators_grid_and_of_its_descriptions_is_there() -> None:
    rows = {row[:22].strip() for row in FOUND.strip().splitlines()}
    assert rows == set(STACKS)
    assert set(KINDS) <= rows


def test_what_is_seen_from_outside_is_the_address_that_the_site_is_known_by(
    town: Internet, found: Mapping[str, Behaviour]
) -> None:
    for name, behaviour in found.items():
        if not behaviour.udp_blocked:
            assert behaviour.mapped is not None
            assert behaviour.mapped.host == (town.site(name).outside or town.host(f"host {name}").addresses[0])


# What others say. Coturn's client asks the third time at the first address, and so takes ADM for APDM.

COTURN = {
    "EIM+EIF": "Endpoint Independent / Endpoint Independent",
    "EIM+ADF random": "Endpoint Independent / Address Dependent",
    "EIM+APDF random": "Endpoint Independent / Address and Port Dependent",
    "ADM+ADF": "Address and Port Dependent / Address Dependent",
    "APDM sequential": "Address and Port Dependent / Address and Port Dependent",
    "carrier over home": "Endpoint Independent / Address and Port Dependent",
}
RFC_3489 = {
    "public": "Open",
    "firewall": "Firewall",
    "EIM+EIF": "Independent Mapping, Independent Filter, preserves ports",
    "EIM+ADF random": "Independent Mapping, Address Dependent Filter, random port",
    "EIM+APDF": "Independent Mapping, Port Dependent Filter, preserves ports",
    "APDM+APDF": "Dependent Mapping, random port",
}


def said_by(town: Internet, names: Mapping[str, str], *command: str) -> dict[str, str]:
    """Return what a program says on several hosts, all at once."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    with ThreadPoolExecutor(len(names)) as pool:
        said = pool.map(lambda name: town.run_in(f"host {name}", command).stdout, names)
        return dict(zip(names, said, strict=True))


def test_coturns_client_finds_the_same(town: Internet, stun: None) -> None:
    said = said_by(town, COTURN, "turnutils_natdiscovery", "-m", "-f", "-p", str(STUN_PORT), SERVER)
    for name, expected in COTURN.items():
        mapping, filtering = expected.split(" / ")
        assert f"NAT with {mapping} Mapping!" in said[name], name
        assert f"NAT with {filtering} Filtering!" in said[name], name


def test_the_client_of_rfc_3489_finds_the_same(town: Internet, stun: None) -> None:
    said = said_by(town, RFC_3489, "stun", f"{SERVER}:{STUN_PORT}")
    for name, expected in RFC_3489.items():
        assert f"Primary: {expected}" in said[name], name


# Ports.


def ports_of(town: Internet, name: str, count: int) -> list[tuple[int, int]]:
    """Open so many sockets on a host, and return the local and the outside port of each."""
    with bound(town.host("stun"), SERVER) as server:
        ports = []
        for _ in range(count):
            with bound(town.host(f"host {name}")) as client:
                ports.append((client.getsockname()[1], seen_from(client, server).port))
        return ports


def test_a_preserving_nat_keeps_ports(town: Internet) -> None:
    assert all(inside == outside for inside, outside in ports_of(town, "EIM+APDF", 5))


def test_a_random_nat_keeps_none(town: Internet) -> None:
    ports = ports_of(town, "APDM+APDF", 5)
    assert all(inside != outside for inside, outside in ports)
    gaps = [after - before for (_, before), (_, after) in pairwise(ports)]
    assert len(set(gaps)) > 1


@pytest.mark.parametrize(("name", "step"), [("APDM sequential", 1), ("EIM+APDF sequential", 2)])
def test_a_sequential_nat_gives_one_port_after_another(name: str, step: int, town: Internet) -> None:
    outside = [port for _, port in ports_of(town, name, 5)]
    assert [after - before for before, after in pairwise(outside)] == [step] * 4


@pytest.mark.parametrize("name", ["EIM+APDF", "EIM+EIF"])
def test_two_hosts_with_the_same_port_get_different_ones_and_keep_them(name: str, town: Internet) -> None:
    twin = town.hosts.get(f"twin {name}") or town.add_host(f"twin {name}", name)
    stun = town.host("stun")
    with (
        bound(town.host(f"host {name}"), port=7475) as one,
        bound(twin, port=7475) as other,
        bound(stun, SERVER) as first,
        bound(stun, OTHER) as second,
    ):
        seen = [seen_from(client, server) for server in (first, second) for client in (one, other)]
        assert seen[:2] == seen[2:]
        assert seen[0].port == 7475 != seen[1].port
        for outside, client in zip(seen, (one, other), strict=False):
            assert gets_through(first, outside, client)


# The size of the table, and lifetimes.


def test_a_full_table_takes_no_new_session(town: Internet) -> None:
    host, limit = town.host("host small table"), 64
    town.reboot_nat("small table")
    with bound(town.host("stun"), SERVER) as server:
        clients = [bound(host) for _ in range(limit + 20)]
        for number, client in enumerate(clients):
            client.sendto(str(number).encode(), server.getsockname())
        heard: list[int] = []
        while (datagram := hears(server, seconds=0.3 if len(heard) >= limit else ANSWER_SECONDS)) is not None:
            heard.append(int(datagram[0]))
        for client in clients:
            client.close()
    assert sorted(heard) == list(range(limit))


def test_a_session_is_forgotten_when_its_lifetime_is_over(net: Internet) -> None:
    short = replace(NatKind(filtering=ADF), lifetime=SECOND)
    net.add_site("home", [short], LINE)
    host, server = net.add_host("alice", "home"), net.add_server("bob", (SERVER,), LINE)
    net.start()
    with bound(host) as alice, bound(server, SERVER) as bob:
        outside = seen_from(alice, bob)
        for _ in range(4):
            # Each keeps it alive for another second.
            assert hears(alice, seconds=0.5) is None
            assert gets_through(bob, outside, alice)
        assert hears(alice, seconds=1.5) is None
        assert not gets_through(bob, outside, alice)


def test_all_kinds_of_descriptions_are_known_to_linux_or_refused_with_a_reason() -> None:
    refused = {name for name, kind in NAT_KINDS.items() if kind is not None and why_not(kind)}
    assert refused == {"apdm-eif", "apdm-adf"}
