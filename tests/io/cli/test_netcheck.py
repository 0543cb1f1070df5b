"""`teale doctor --netcheck` against servers on loopback that pretend to be behind NATs of every kind, and a gateway."""

import os
import selectors
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from teale_io import netcheck
from teale_io.cli.checkup import Level
from teale_io.cli.checkup_network import findings, save, servers_of
from teale_io.cli.doctor import ServerOption
from teale_io.config import Config
from teale_io.netcheck import Family, Netcheck, Server, default_gateway
from teale_proto.contract import SECOND
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat import pcp
from teale_proto.nat.behaviour import Retransmission
from teale_proto.nat.kinds import Behaviour, Filtering, Hairpinning, Mapping
from teale_proto.nat.port_mapping_values import (
    Protocol,
    Refusal,
    ReportPortMapped,
    ReportPortRefused,
    ReportPortUnavailable,
)
from teale_proto.nat.stun_server import StunServer
from tests.io.cli.conftest import Teale
from tests.io.cli.test_doctor import findings_of, relay, with_relay
from tests.loopback import FIRST_HOST, four_endpoints, udp

OUTSIDE = "203.0.113.9"
GATEWAY = "127.0.0.88"
QUICK = Retransmission(first=SECOND // 10, requests=3, patience=2)
"""As long as loopback may take."""

Seen = Callable[[Address, Address], Address]
"""As what a server at an endpoint sees a client."""
LetsIn = Callable[[Address, Address], bool]
"""Whether an answer from the first endpoint is let in, to a question to the second."""


def plainly(client: Address, server: Address) -> Address:
    return client


def anybody(origin: Address, asked: Address) -> bool:
    return True


@contextmanager
def until_told(serve: Callable[[socket.socket], None], socks: list[socket.socket]) -> Iterator[None]:
    """Have `serve` read whatever comes in, in a thread, until the block ends."""
    waker, woken = socket.socketpair()

    def run() -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (woken, *socks):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is woken:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    serve(key.fileobj)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        waker.send(b"x")
        thread.join()
        waker.close()
        woken.close()


def name(sock: socket.socket) -> Address:
    return Address(*sock.getsockname()[:2])


@contextmanager
def stun(*, sees: Seen = plainly, lets_in: LetsIn = anybody, is_double: bool = True) -> Iterator[Server]:
    """Run a STUN server, at four endpoints if `is_double`, beyond a NAT that does what is said."""
    with ExitStack() as stack:
        if is_double:
            here, there, *crossing = stack.enter_context(four_endpoints())
            server = StunServer(name(here), name(there))
            socks = {name(each): each for each in (here, there, *crossing)}
        else:
            here = stack.enter_context(udp(FIRST_HOST))
            server = StunServer(name(here))
            socks = {name(here): here}

        def serve(sock: socket.socket) -> None:
            data, came_from = sock.recvfrom(2000)
            asked = name(sock)
            for answer in server.handle(DatagramReceived(asked, sees(Address(*came_from), asked), data), 0):
                if lets_in(answer.local, asked):
                    socks[answer.local].sendto(answer.data, came_from)

        stack.enter_context(until_told(serve, list(socks.values())))
        yield Server(*pair(name(here)))


def pair(address: Address) -> tuple[str, int]:
    return address.host, address.port


def one_port(client: Address, server: Address) -> Address:
    return Address(OUTSIDE, client.port)


def by_address(client: Address, server: Address) -> Address:
    return Address(OUTSIDE, 10_000 + int(server.host[-1]))


def by_port(client: Address, server: Address) -> Address:
    return Address(OUTSIDE, server.port ^ int(server.host[-1]))


def known_hosts(origin: Address, asked: Address) -> bool:
    return origin.host == asked.host


def known_ports(origin: Address, asked: Address) -> bool:
    return origin == asked


EIM, ADM, APDM = Mapping
EIF, ADF, APDF = Filtering


@pytest.mark.parametrize(
    ("sees", "lets_in", "expected"),
    [
        (plainly, anybody, (False, EIM, EIF)),
        (plainly, known_ports, (False, EIM, APDF)),
        (one_port, anybody, (True, EIM, EIF)),
        (one_port, known_hosts, (True, EIM, ADF)),
        (one_port, known_ports, (True, EIM, APDF)),
        (by_address, known_hosts, (True, ADM, ADF)),
        (by_port, known_ports, (True, APDM, APDF)),
    ],
)
def test_a_server_with_two_addresses_tells_everything(
    sees: Seen, lets_in: LetsIn, expected: tuple[bool, Mapping, Filtering]
) -> None:
    with stun(sees=sees, lets_in=lets_in) as server:
        found = netcheck.run([server], patience=QUICK).of(4)
    assert found is not None
    assert found.behaviour is not None
    behaviour = found.behaviour
    assert (behaviour.translated, behaviour.mapping, behaviour.filtering) == expected
    assert found.server == Address(server.host, server.port)
    assert found.round_trip_seconds is not None
    assert 0 < found.round_trip_seconds < 5


def test_a_server_with_one_address_leaves_filtering_unknown_and_says_so() -> None:
    with stun(sees=one_port, is_double=False) as server:
        result = netcheck.run([server], patience=QUICK)
    said = {each.check: each for each in findings(result, map_port=False, asked=True)}
    assert said["filtering, IPv4"].found.startswith("not known: that needs a STUN server with two addresses")
    assert said["mapping, IPv4"].status is Level.WARN
    assert "--stun HOST:PORT, given twice" in said["mapping, IPv4"].advice


def test_nobody_there_is_what_blocked_udp_looks_like_and_the_next_server_is_asked() -> None:
    with udp("127.0.0.1") as silent:
        nobody = Server(*pair(name(silent)))
        [family] = netcheck.run([nobody], patience=QUICK).families
        assert family.behaviour == Behaviour(udp_blocked=True)
        assert family.server is None
        with stun() as server:
            [family] = netcheck.run([nobody, server], patience=QUICK).families
    assert family.server == Address(server.host, server.port)
    assert [each.port for each in family.asked] == [nobody.port, server.port]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_both_versions_of_ip_are_tried_at_once() -> None:
    with stun(is_double=False) as four, udp("::1") as silent:
        result = netcheck.run([four, Server(*pair(name(silent)))], patience=QUICK)
    assert [(each.version, each.server is None) for each in result.families] == [(4, False), (6, True)]


def test_a_name_that_leads_nowhere_is_reported() -> None:
    result = netcheck.run([Server("a..b")])
    assert (result.families, result.unresolved) == ((), ("a..b",))
    [said] = findings(result, map_port=False, asked=True)
    assert (said.status, said.found) == (Level.WARN, "a..b has no address")


# The gateway.


@contextmanager
def gateway(answer: Callable[[bytes, Address], bytes | None]) -> Iterator[list[bytes]]:
    """Run something at the gateway's port; yields what it was asked."""
    asked: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        data, came_from = sock.recvfrom(2000)
        asked.append(data)
        said = answer(data, Address(*came_from))
        if said is not None:
            sock.sendto(said, came_from)

    try:
        sock = udp(GATEWAY, pcp.SERVER_PORT)
    except OSError:
        pytest.skip("that address, or its port, cannot be had here")
    with sock, until_told(serve, [sock]):
        yield asked


def opens(external: str) -> Callable[[bytes, Address], bytes | None]:
    def answer(data: bytes, client: Address) -> bytes | None:
        request = pcp.decode_request(data)
        assert isinstance(request, pcp.MapRequest)
        assert request.internal_port == client.port
        where = Address(external, 40_000)
        return pcp.encode(pcp.MapResponse(0, request.lifetime_seconds, 1, request.nonce, pcp.UDP, client.port, where))

    return answer


def test_a_port_is_opened_at_the_gateway_and_closed_again() -> None:
    with gateway(opens("198.51.100.7")) as asked:
        result = netcheck.run([], map_port=True, gateway=GATEWAY)
    outcome = result.port_mapping
    assert isinstance(outcome, ReportPortMapped)
    assert (outcome.protocol, outcome.external) == (Protocol.PCP, Address("198.51.100.7", 40_000))
    last = pcp.decode_request(asked[-1])
    assert isinstance(last, pcp.MapRequest)
    assert last.lifetime_seconds == 0, "closed"


def test_a_gateway_that_is_not_asked_for_hears_nothing() -> None:
    with gateway(opens("198.51.100.7")) as asked:
        assert netcheck.run([], gateway=GATEWAY).port_mapping is None
    assert not asked


def test_the_gateway_is_that_of_the_best_default_route(tmp_path: Path) -> None:
    table = tmp_path / "route"
    heading = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"

    def packed(host: str) -> str:
        return f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}"

    rows = [
        ("eth0", "00000000", packed("10.0.0.1"), "0003", 200, "00000000"),
        ("wifi", "00000000", packed("192.168.1.1"), "0003", 100, "00000000"),
        ("tun0", "00000000", "00000000", "0001", 1, "00000000"),
        ("eth0", packed("10.0.0.0"), "00000000", "0001", 0, "00FFFFFF"),
    ]
    lines = "".join(f"{i}\t{d}\t{g}\t{f}\t0\t0\t{m}\t{mask}\t0\t0\t0\n" for i, d, g, f, m, mask in rows)
    table.write_text(heading + lines)
    assert default_gateway(table) == "192.168.1.1"
    table.write_text(heading)
    assert default_gateway(table) == ""
    assert default_gateway(tmp_path / "none") == ""


# What is said of it.

HERE = Address("127.0.0.1", 5000)


def result_of(behaviour: Behaviour | None, **more: Any) -> Netcheck:
    return Netcheck((Family(4, "192.168.1.2", HERE, (HERE,), behaviour, 0.0123),), **more)


def hard() -> Behaviour:
    return Behaviour(
        udp_blocked=False,
        mapped=Address(OUTSIDE, 7),
        translated=True,
        mapping=APDM,
        mapping_varies=True,
        filtering=APDF,
        hairpinning=Hairpinning.NONE,
    )


def test_a_hard_nat_is_explained_with_what_to_do() -> None:
    said = {each.check: each for each in findings(result_of(hard()), map_port=False, asked=True)}
    assert said["udp, IPv4"].found == (
        "127.0.0.1:5000 answers in 12.3 ms and sees this machine as 203.0.113.9:7, translated by a NAT"
    )
    assert said["mapping, IPv4"].status is Level.WARN
    assert said["mapping, IPv4"].found.startswith("address-and-port-dependent: another port for every address and port")
    assert "--port-mapping" in said["mapping, IPv4"].advice
    assert said["paths, IPv4"].found == (
        "to peers without NAT: direct; to peers behind usual home routers: relayed; to peers behind hard NATs: relayed"
    )
    assert "do not reach each other" in said["hairpin, IPv4"].found


@pytest.mark.parametrize(
    ("outcome", "status", "found"),
    [
        (
            ReportPortMapped(HERE, Address("198.51.100.7", 40_000), 120 * SECOND, Protocol.PCP, routable=True),
            Level.OK,
            "10.0.0.1 opens ports by PCP, at 198.51.100.7:40000",
        ),
        (
            ReportPortMapped(HERE, Address("100.64.0.7", 40_000), 120 * SECOND, Protocol.NAT_PMP, routable=False),
            Level.WARN,
            "10.0.0.1 opens ports by NAT-PMP, at 100.64.0.7:40000, which is not an address of the internet",
        ),
        (ReportPortRefused(HERE, Refusal.NOT_AUTHORIZED, SECOND), Level.WARN, "10.0.0.1 refuses: not authorized"),
        (ReportPortUnavailable(HERE, SECOND), Level.OK, "10.0.0.1 speaks neither PCP nor NAT-PMP"),
        (None, Level.OK, "10.0.0.1 speaks neither PCP nor NAT-PMP"),
    ],
)
def test_what_the_gateway_said_is_said(outcome: Any, status: Level, found: str) -> None:
    result = Netcheck((), gateway="10.0.0.1", port_mapping=outcome)
    said = findings(result, map_port=True, asked=True)[-1]
    assert (said.status, said.found) == (status, found)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("stun.example.com", Server("stun.example.com", 3478)),
        ("stun.example.com:19302", Server("stun.example.com", 19302)),
        ("[2001:db8::1]:5000", Server("2001:db8::1", 5000)),
        ("2001:db8::1", Server("2001:db8::1", 3478)),
        ("192.0.2.1:1", Server("192.0.2.1", 1)),
    ],
)
def test_a_server_is_named_with_or_without_a_port(text: str, server: Server) -> None:
    assert ServerOption().convert(text, None, None) == server


@pytest.mark.parametrize("text", ["", "host:port", "host:70000", "a/b", "user@host", "[::1"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="is not HOST"):
        ServerOption().convert(text, None, None)


def test_the_relay_is_asked_first_and_nobody_who_was_not_named() -> None:
    named = (Server("stun.example.com"), Server("relay.example.com", 443))
    assert servers_of(Config(), ()) == ()
    wan = Config(wan_enabled=True, wan_relay_url="wss://relay.example.com/ws")
    relays = (Server("relay.example.com", 443), Server("relay.example.com", 3478))
    assert servers_of(wan, named) == (*relays, Server("stun.example.com"))
    of_ours = Config(wan_enabled=True, wan_relay_url="wss://relay.example.com/ws", wan_stun=("192.0.2.1:7",))
    assert servers_of(of_ours, ()) == (Server("192.0.2.1", 7), *relays)


# The profile.


def test_a_profile_tells_how_nats_behave_and_no_address(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    outcome = ReportPortMapped(HERE, Address(OUTSIDE, 40_000), SECOND, Protocol.PCP, routable=True)
    kept = save(result_of(hard(), gateway="10.0.0.1", port_mapping=outcome), file)
    assert (kept.status, kept.found) == (Level.OK, f"kept in {file}")
    assert tomllib.loads(file.read_text()) == {
        "ipv4": {
            "udp_blocked": False,
            "translated": True,
            "mapping": "address-and-port-dependent",
            "filtering": "address-and-port-dependent",
            "hairpinning": "none",
        },
        "gateway": {"port_mapping": "PCP"},
    }
    assert OUTSIDE not in file.read_text()


def test_a_profile_that_cannot_be_kept_is_a_finding(tmp_path: Path) -> None:
    assert save(Netcheck(()), tmp_path / "p").found == "nothing is known that could be kept"
    assert "no such file or directory" in save(result_of(hard()), tmp_path / "none" / "p").found
    assert os.listdir(tmp_path) == []


# As a command.


@pytest.fixture
def configured(teale_command: Teale) -> Teale:
    for key, value in (("identity_storage", "plain-file"), ("api_port", "0"), ("lan_port", "0")):
        assert teale_command("config", "set", key, value).code == 0
    return teale_command


def test_a_doctor_who_is_not_asked_for_it_asks_nobody(configured: Teale) -> None:
    document = configured("doctor", "--skip-models", "--json").document
    assert "netcheck" not in document
    assert not any("udp" in each for each in findings_of(document))


def test_without_a_server_there_is_advice_and_no_failure(configured: Teale) -> None:
    ended = configured("doctor", "--skip-models", "--netcheck", "--json")
    found = findings_of(ended.document)
    assert (ended.code, found["udp"]["status"]) == (0, "warn")
    assert "--stun HOST:PORT" in found["udp"]["advice"]


def test_the_nodes_own_relay_is_asked_and_the_profile_kept(configured: Teale, tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    with relay("--stun-alternate", "127.0.0.2") as url:
        with_relay(configured, url)
        ended = configured("doctor", "--skip-models", "--save", str(file), "--json")
    assert ended.code == 0
    port = int(url.rsplit(":", 1)[1].removesuffix("/ws"))
    found = ended.document["netcheck"]["ipv4"]
    assert found["server"] == f"127.0.0.1:{port}"
    assert (found["mapping"], found["filtering"]) == ("endpoint-independent", "endpoint-independent")
    assert found["round_trip_ms"] > 0
    assert tomllib.loads(file.read_text())["ipv4"]["filtering"] == "endpoint-independent"
