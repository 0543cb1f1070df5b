"""Relay latencies, captive portals and lifetimes: found out on loopback, and said in words."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest
import trio

from teale_io import netcheck, upnp
from teale_io.cli.checkup import Finding, Level
from teale_io.cli.checkup_network import as_builtins, findings, save
from teale_io.cli.checkup_ways import page_of, search_lifetimes
from teale_io.cli.doctor import PageOption
from teale_io.config import Config
from teale_io.nat_lifetime import SPAN, Span, find_lifetime, minutes_at_most
from teale_io.netcheck import Netcheck, PortalPage, RelayTarget
from teale_io.relay_check import Portal, PortalOutcome, RelayLatency
from teale_io.stun_servers import Server
from teale_io.websocket import WebSocketDialer
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.behaviour import Retransmission
from teale_proto.nat.kinds import Behaviour, Filtering
from teale_proto.nat.lifetime import Bounds, LifetimeOutcome, ReportLifetime, ReportSilence
from teale_proto.nat.stun import ResponsePort, decode
from teale_proto.nat.stun_server import StunServer
from tests.io.cli.conftest import Teale
from tests.io.cli.test_doctor import findings_of, relay, with_relay
from tests.io.cli.test_netcheck import HERE, QUICK, configured, name, result_of, until_told
from tests.loopback import udp

__all__ = ["configured"]

BRIEF = Span(shortest=40 * MILLISECOND, longest=160 * MILLISECOND, resolution=60 * MILLISECOND)
PATIENCE = Retransmission(first=SECOND // 10, requests=3, patience=2)


# Captive portals.


@contextmanager
def web(status: int, body: bytes = b"", **headers: str) -> Iterator[str]:
    """Run a web server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header, value)
            if status != 204:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/page"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def portal(url: str, *, is_health: bool = False) -> Portal:
    found = netcheck.run([], page=PortalPage(url, is_health)).portal
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("status", "body", "is_health", "outcome"),
    [
        (204, b"", False, PortalOutcome.CLEAR),
        (200, b"", False, PortalOutcome.CLEAR),
        (200, b"<html>Welcome to the hotel</html>", False, PortalOutcome.INTERCEPTED),
        (302, b"", False, PortalOutcome.INTERCEPTED),
        (511, b"", False, PortalOutcome.INTERCEPTED),
        (200, b'{"ok":true,"peers":3}', True, PortalOutcome.CLEAR),
        (503, b'{"ok":false,"peers":3}', True, PortalOutcome.CLEAR),
        (204, b"", True, PortalOutcome.INTERCEPTED),
        (200, b"<html>", True, PortalOutcome.INTERCEPTED),
        (200, b"[" * 5000, True, PortalOutcome.INTERCEPTED),
        (200, b"x" * 1_000_000, True, PortalOutcome.INTERCEPTED),
    ],
)
def test_a_portal_is_whoever_gives_another_answer(
    status: int, body: bytes, is_health: bool, outcome: PortalOutcome
) -> None:
    with web(status, body) as url:
        assert portal(url, is_health=is_health).outcome is outcome


def test_a_portal_is_told_with_where_it_leads() -> None:
    with web(302, location="http://hotel.example/terms") as url:
        found = portal(url)
    assert found.detail == "status 302, which leads to http://hotel.example/terms"
    said = one(Netcheck((), portal=found))
    assert said.status is Level.WARN
    assert said.found.startswith(f"somebody else answers for {url}: status 302")
    assert "accept the terms" in said.advice


def test_no_answer_is_not_taken_for_a_portal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = portal(f"http://127.0.0.1:{port}/")
    assert (found.outcome, found.detail) == (PortalOutcome.NO_ANSWER, "connection refused")
    assert one(Netcheck((), portal=found)).status is Level.WARN


def test_nobody_is_asked_but_our_own_relay_unless_somebody_is_named() -> None:
    assert page_of(Config(), None) is None
    tls = Config(wan_enabled=True, wan_relay_url="wss://relay.example/ws")
    plain = Config(wan_enabled=True, wan_relay_url="ws://relay.example:8080/ws")
    assert page_of(tls, None) is None, "nobody can forge its answer"
    assert page_of(plain, None) == PortalPage("http://relay.example:8080/health", is_health=True)
    assert page_of(tls, "http://empty.example/") == PortalPage("http://empty.example/", is_health=False)


@pytest.mark.parametrize("text", ["", "https://empty.example/", "http://", "http://u@h/", "http://h:0/", "http://h/ x"])
def test_what_is_no_page_over_plain_http_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="http://"):
        PageOption().convert(text, None, None)


# Relays.


def one(result: Netcheck) -> Finding:
    (said,) = findings(result, map_port=False, asked=True)
    return said


def test_a_relay_is_connected_to_and_asked_over_udp() -> None:
    with relay() as url:
        port = int(url.rsplit(":", 1)[1].removesuffix("/ws"))
        target = RelayTarget(url, WebSocketDialer(), Server("127.0.0.1", port))
        (latency,) = netcheck.run([], relays=[target], patience=QUICK).relays
    assert latency.reason == ""
    for seconds in (latency.connect_seconds, latency.websocket_seconds, latency.stun_seconds):
        assert seconds is not None
        assert 0 < seconds < 5


def test_a_relay_that_is_not_there_is_told_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, udp("127.0.0.1") as silent:
        port = taken.getsockname()[1]
        taken.close()
        target = RelayTarget(f"ws://127.0.0.1:{port}/ws", WebSocketDialer(), Server("127.0.0.1", name(silent).port))
        result = netcheck.run([], relays=[target], patience=QUICK)
    (latency,) = result.relays
    assert (latency.connect_seconds, latency.websocket_seconds, latency.stun_seconds) == (None, None, None)
    said = one(result)
    assert said.found == f"ws://127.0.0.1:{port}/ws cannot be connected to: connection refused"


def test_what_is_a_web_server_and_no_relay_is_told_apart() -> None:
    with web(404) as url, udp("127.0.0.1") as silent:
        target = RelayTarget(url.replace("http", "ws"), WebSocketDialer(), Server("127.0.0.1", name(silent).port))
        (latency,) = netcheck.run([], relays=[target], patience=QUICK).relays
    assert latency.connect_seconds is not None
    assert latency.websocket_seconds is None
    assert latency.reason == "the answer is not that of a WebSocket server"


def test_latencies_are_said_in_one_line() -> None:
    assert one(Netcheck((), relays=(RelayLatency("ws://r/", 0.01, 0.025, 0.009),))).found == (
        "ws://r/: TCP in 10.0 ms, WebSocket in 25.0 ms, STUN in 9.0 ms"
    )
    assert one(Netcheck((), relays=(RelayLatency("ws://r/", 0.01, 0.025),))).found.endswith("no answer to STUN")


# Lifetimes.


@contextmanager
def stun_behind(remembers: Callable[[int], bool]) -> Iterator[Address]:
    """Run a STUN server whose answers to another port pass if the NAT remembers at that question, the first being 0."""
    with ExitStack() as stack:
        sock = stack.enter_context(udp("127.0.0.1"))
        server = StunServer(name(sock))
        seen: dict[bytes, int] = {}

        def passes(request: bytes, answer: SendDatagram) -> bool:
            message = decode(request)
            if message.get(ResponsePort) is None:
                return True
            return remembers(seen.setdefault(message.transaction, len(seen)))

        def serve(sock: socket.socket) -> None:
            data, came_from = sock.recvfrom(2000)
            for answer in server.handle(DatagramReceived(name(sock), Address(*came_from), data), 0):
                if passes(data, answer):
                    sock.sendto(answer.data, (answer.remote.host, answer.remote.port))

        stack.enter_context(until_told(serve, [sock]))
        yield name(sock)


def lifetime(server: Address) -> tuple[ReportLifetime, list[ReportSilence]]:
    told: list[ReportSilence] = []

    async def find() -> ReportLifetime | None:
        with trio.fail_after(60):
            return await find_lifetime("127.0.0.1", server, tell=told.append, span=BRIEF, retransmission=PATIENCE)

    report = trio.run(find)
    assert report is not None
    return report, told


def test_two_sockets_find_out_that_a_port_stays_open() -> None:
    with stun_behind(lambda question: True) as server:
        report, told = lifetime(server)
    assert (report.outcome, report.known.at_most) == (LifetimeOutcome.FOUND, None)
    assert report.known.at_least >= BRIEF.longest - BRIEF.resolution
    assert [each.survived for each in told] == [True] * report.silences


def test_two_sockets_find_out_that_a_port_is_closed_at_once() -> None:
    with stun_behind(lambda question: question == 0) as server:
        report, told = lifetime(server)
    assert report.outcome is LifetimeOutcome.FOUND
    assert report.known.at_least == 0
    assert report.known.at_most is not None
    assert [each.survived for each in told] == [False] * report.silences


def test_a_server_whose_answer_never_arrives_elsewhere_is_told_apart() -> None:
    with stun_behind(lambda question: False) as server:
        report, _ = lifetime(server)
    assert (report.outcome, report.silences) == (LifetimeOutcome.UNREACHABLE, 0)


def test_a_search_says_how_long_it_may_take_and_how_far_it_is() -> None:
    assert 20 <= minutes_at_most(SPAN) <= 25
    told: list[str] = []
    with stun_behind(lambda question: True) as server:
        behaviour = Behaviour(udp_blocked=False, mapped=HERE, translated=True)
        (family,) = result_of(behaviour).families
        here = Netcheck((netcheck.Family(4, "127.0.0.1", server, (server,), behaviour, family.round_trip_seconds),))
        result = search_lifetimes(here, told.append, span=BRIEF)
    assert told[0].startswith("Finding out for how long an unused port stays open: up to 1 minutes")
    assert all(each.startswith("IPv4: still open after 0 s of silence; ") for each in told[1:])
    assert told[-1].endswith("that is exact enough")
    found = result.of(4)
    assert found is not None
    assert found.lifetime is not None


def test_where_nothing_can_be_forgotten_nothing_is_searched_for() -> None:
    open_ = Behaviour(udp_blocked=False, mapped=HERE, translated=False, filtering=Filtering.ENDPOINT_INDEPENDENT)
    told: list[str] = []
    for behaviour in (open_, Behaviour(udp_blocked=True), None):
        assert search_lifetimes(result_of(behaviour), told.append) == result_of(behaviour)
    assert len(told) == 3


def known(at_least: int, at_most: int | None, outcome: LifetimeOutcome = LifetimeOutcome.FOUND) -> Netcheck:
    bounds = Bounds(at_least * SECOND, None if at_most is None else at_most * SECOND)
    behaviour = Behaviour(udp_blocked=False, mapped=HERE, translated=True)
    (family,) = result_of(behaviour).families
    report = ReportLifetime(HERE, outcome, bounds, 5)
    asked = (family.version, family.local, family.server, family.asked, behaviour, family.round_trip_seconds)
    return Netcheck((netcheck.Family(*asked, report),))


@pytest.mark.parametrize(
    ("result", "status", "found"),
    [
        (known(115, 121), Level.OK, "an unused port stays open for 115 s to 121 s"),
        (known(292, None), Level.OK, "an unused port stays open for 292 s at least"),
        (known(23, 29), Level.WARN, "an unused port stays open for 23 s to 29 s"),
        (known(0, 10), Level.WARN, "an unused port stays open for 10 s at most"),
        (known(0, None, LifetimeOutcome.REFUSED), Level.WARN, "not known: the server answers to no other port"),
        (known(55, None, LifetimeOutcome.NO_ANSWER), Level.WARN, "not known, as the server fell silent; 55 s at least"),
    ],
)
def test_a_lifetime_is_said_in_words(result: Netcheck, status: Level, found: str) -> None:
    said = {each.check: each for each in findings(result, map_port=False, asked=True)}["lifetime, IPv4"]
    assert (said.status, said.found) == (status, found)


def test_a_lifetime_is_kept_and_told_to_programs(tmp_path: Path) -> None:
    result = known(115, 121)
    assert as_builtins(result)["ipv4"]["lifetime"] == {
        "outcome": "found",
        "at_least_seconds": 115.0,
        "at_most_seconds": 121.0,
    }
    file = tmp_path / "profile.toml"
    assert save(result, file).status is Level.OK
    assert "lifetime_at_least_seconds = 115.0" in file.read_text()


# UPnP: what is believed.


@pytest.mark.parametrize(
    ("url", "is_right"),
    [
        ("http://10.0.0.1:5000/desc.xml", True),
        ("http://10.0.0.1/", True),
        ("http://10.0.0.2:5000/", False),
        ("https://10.0.0.1/", False),
        ("http://10.0.0.1@10.0.0.2/", False),
        ("http://user@10.0.0.1/", False),
        ("http://10.0.0.1.example/", False),
        ("http://10.0.0.1:0/", False),
        ("http://10.0.0.1:99999/", False),
        ("http://router.example/", False),
        ("", False),
    ],
)
def test_only_what_is_at_the_gateways_own_address_is_believed(url: str, is_right: bool) -> None:
    assert upnp.is_on(url, "10.0.0.1") is is_right
    st = "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1"
    answer = f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\n{st}\r\nLocation: {url}\r\n\r\n".encode()
    assert upnp.location_in(answer, "10.0.0.1") == (url if is_right else None)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe",
        b"HTTP/1.1 404 Not Found\r\nLOCATION: http://10.0.0.1/\r\n\r\n",
        b"NOTIFY * HTTP/1.1\r\nLOCATION: http://10.0.0.1/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://10.0.0.1/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: http://10.0.0.1/"
        + b"x" * 600
        + b"\r\n\r\n",
    ],
)
def test_what_is_no_answer_of_a_gateway_is_passed_over(answer: bytes) -> None:
    assert upnp.location_in(answer, "10.0.0.1") is None


class Library:
    """What the library would do, with a gateway that says what a test wants."""

    def __init__(self, *, control: str = "http://10.0.0.1/ctl", says: tuple[str, ...] = (), outside: str = "8.8.4.1"):
        self.control = control
        self.says = list(says)
        self.outside = outside
        self.added: list[tuple[Any, ...]] = []

    def selectigd(self, url: str) -> str:
        return self.control

    def externalipaddress(self) -> str:
        return self.outside

    def addportmapping(self, *arguments: Any) -> bool:
        self.added.append(arguments)
        if self.says:
            raise Exception(self.says.pop(0))
        return True


INSIDE = Address("10.0.0.9", 4433)


async def test_a_gateway_that_sends_us_to_somebody_else_is_not_used() -> None:
    gateway = upnp.UpnpGateway("10.0.0.1", Library(control="http://10.0.0.66/ctl"))
    with pytest.raises(upnp.UpnpUnavailable, match="somebody else"):
        await gateway.select("http://10.0.0.1/desc.xml")
    with pytest.raises(upnp.UpnpUnavailable, match="not used any more"):
        await gateway.request(INSIDE, 600)


async def test_a_port_that_is_taken_leads_to_another_one() -> None:
    library = Library(says=("ConflictInMappingEntry", "ConflictInMappingEntry"))
    mapping = await upnp.UpnpGateway("10.0.0.1", library).request(INSIDE, 600)
    ports = [each[0] for each in library.added]
    assert (len(ports), ports[0], ports[-1]) == (3, INSIDE.port, mapping.external.port)
    assert all(1024 <= port < 65536 for port in ports)
    always = Library(says=("ConflictInMappingEntry",) * 9)
    with pytest.raises(upnp.UpnpRefused, match="no resources"):
        await upnp.UpnpGateway("10.0.0.1", always).request(INSIDE, 600)
    assert len(always.added) == upnp.PORTS_TRIED_MAX


async def test_a_gateway_that_knows_only_for_ever_is_asked_for_that() -> None:
    library = Library(says=("OnlyPermanentLeasesSupported",))
    mapping = await upnp.UpnpGateway("10.0.0.1", library).request(INSIDE, 600)
    assert mapping.lifetime_seconds == 0
    assert [each[-1] for each in library.added] == [600, 0]


@pytest.mark.parametrize("outside", ["", "0.0.0.0", "2001:db8::1", "router", "None"])
async def test_an_outside_address_that_is_none_is_not_believed(outside: str) -> None:
    with pytest.raises(upnp.UpnpUnavailable, match="no outside address"):
        await upnp.UpnpGateway("10.0.0.1", Library(outside=outside)).request(INSIDE, 600)


# As a command.


def test_the_doctor_measures_the_relay_and_looks_for_portals_there(configured: Teale) -> None:
    with relay() as url:
        with_relay(configured, url)
        ended = configured("doctor", "--skip-models", "--netcheck", "--json")
    found = findings_of(ended.document)
    assert found["captive portal"]["found"].startswith("none: http://127.0.0.1:")
    assert found["relay latency"]["status"] == "ok"
    (latency,) = ended.document["netcheck"]["relays"]
    assert latency["url"] == url
    assert min(latency["connect_ms"], latency["websocket_ms"], latency["stun_ms"]) > 0
    assert ended.document["netcheck"]["captive_portal"]["outcome"] == "clear"


def test_the_doctor_says_that_a_lifetime_cannot_be_searched_for(configured: Teale) -> None:
    ended = configured("doctor", "--skip-models", "--lifetime")
    assert ended.code == 0
    assert "no mapping or filter here" in ended.err


def test_the_doctor_finds_a_portal_by_a_page_that_is_named(configured: Teale) -> None:
    with web(302, location="http://hotel.example/") as url:
        ended = configured("doctor", "--skip-models", "--portal-url", url, "--json")
    assert (ended.code, findings_of(ended.document)["captive portal"]["status"]) == (0, "warn")
    assert configured("doctor", "--portal-url", "https://empty.example").code == 2
