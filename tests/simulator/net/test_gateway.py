"""What a gateway answers when it is asked to open ports: by PCP, by NAT-PMP and by UPnP, without a network."""

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.net import igd
from simulator.net.gateway import CONNECTIONS_MAX, Gateway, Services
from simulator.net.nat import Nat, NatKind, Packet, Pooling
from simulator.rng import stream
from teale_proto.contract import SECOND, Instant, Value
from teale_proto.effects import CloseConnection, SendData, SendDatagram
from teale_proto.inputs import Address, ConnectionAccepted, ConnectionClosed, DatagramReceived, DataReceived
from teale_proto.nat import nat_pmp, pcp

OUTSIDE = "203.0.113.1"
INSIDE = Address("10.0.0.2", 40000)
OTHER = Address("10.0.0.3", 40000)
OWN = "10.0.0.1"
CLIENT = Address("10.0.0.2", 5555)
STRANGER = Address("198.51.100.7", 7)
HOUR = 3600 * SECOND


def make_nat(kind: NatKind | None = None, outside: Sequence[str] = ()) -> Nat:
    kind = kind or NatKind()
    return Nat(kind, outside or [OUTSIDE] if kind.translates else (), stream(1, "nat", "test"))


def lets_in(nat: Nat, port: int, now: Instant, host: str = OUTSIDE) -> Address | None:
    packet = nat.inbound(Packet(STRANGER, Address(host, port), b"x"), now)
    return packet.destination if packet else None


class Desk:
    """A gateway core, asked by hand."""

    def __init__(self, services: Services | None = None, kind: NatKind | None = None, *outside: str) -> None:
        self.nat = make_nat(kind, outside)
        self.gateway = Gateway([OWN], [self.nat], services)
        self.now: Instant = 0

    def ask(self, data: bytes, remote: Address = CLIENT, port: int = 5351) -> bytes | None:
        effects = self.gateway.handle(DatagramReceived(Address(OWN, port), remote, data), self.now)
        if not effects:
            return None
        (answer,) = effects
        assert isinstance(answer, SendDatagram)
        assert (answer.local, answer.remote) == (Address(OWN, port), remote)
        return answer.data

    def pcp(self, host: str = INSIDE.host, **changes: Any) -> pcp.Response | None:
        fields: dict[str, Any] = {"nonce": b"n" * 12, "protocol": pcp.UDP, "internal_port": 40000, "client": host}
        fields |= {"lifetime_seconds": 7200, "suggested": Address("0.0.0.0", 40000), **changes}
        answer = self.ask(pcp.encode(pcp.MapRequest(**fields)), Address(host, 5555))
        return None if answer is None else pcp.decode_response(answer)

    def result(self, host: str = INSIDE.host, **changes: Any) -> int:
        answer = self.pcp(host, **changes)
        assert isinstance(answer, pcp.MapResponse)
        return answer.result

    def nat_pmp(self, request: nat_pmp.Request, remote: str = INSIDE.host) -> nat_pmp.Response:
        answer = self.ask(nat_pmp.encode(request), Address(remote, 5555))
        assert answer is not None
        return nat_pmp.decode_response(answer)


def test_pcp_opens_prolongs_and_closes() -> None:
    desk = Desk()
    desk.now = 5 * SECOND
    opened = pcp.MapResponse(0, 7200, 5, b"n" * 12, pcp.UDP, 40000, Address(OUTSIDE, 40000))
    assert desk.pcp() == opened
    assert lets_in(desk.nat, 40000, desk.now) == INSIDE
    assert desk.result() == 0
    closed = desk.pcp(lifetime_seconds=0)
    assert isinstance(closed, pcp.MapResponse)
    assert (closed.result, closed.lifetime_seconds) == (0, 0)
    assert lets_in(desk.nat, 40000, desk.now) is None
    assert desk.result(lifetime_seconds=0) == 0


def test_pcp_keeps_lifetimes_within_its_bounds() -> None:
    desk = Desk()
    ask = ((asked, desk.pcp(lifetime_seconds=asked)) for asked in (1, 7200, 2**32 - 1))
    granted = {asked: answer.lifetime_seconds for asked, answer in ask if isinstance(answer, pcp.MapResponse)}
    assert granted == {1: 120, 7200: 7200, 2**32 - 1: 86_400}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client": "10.0.0.9"}, pcp.ResultCode.ADDRESS_MISMATCH),
        ({"protocol": pcp.TCP}, pcp.ResultCode.UNSUPP_PROTOCOL),
        ({"protocol": 0, "internal_port": 0}, pcp.ResultCode.UNSUPP_PROTOCOL),
        ({"options": (pcp.Option(pcp.OptionCode.FILTER, bytes(20)),)}, pcp.ResultCode.UNSUPP_OPTION),
        ({"options": (pcp.Option(pcp.OptionCode.THIRD_PARTY, bytes(16)),)}, pcp.ResultCode.UNSUPP_OPTION),
        ({"options": (pcp.Option(200, b"x"), pcp.Option(pcp.OptionCode.PREFER_FAILURE))}, pcp.ResultCode.SUCCESS),
    ],
)
def test_what_pcp_refuses(changes: dict[str, Any], code: int) -> None:
    assert Desk().result(**changes) == code


def test_pcp_lets_nobody_change_a_mapping_without_its_nonce() -> None:
    desk = Desk()
    assert desk.result() == 0
    for lifetime in (0, 7200):
        assert desk.result(nonce=b"m" * 12, lifetime_seconds=lifetime) == pcp.ResultCode.NOT_AUTHORIZED
        request = nat_pmp.MapRequest(nat_pmp.Opcode.MAP_UDP, 40000, 40000, lifetime)
        answer = desk.nat_pmp(request)
        assert isinstance(answer, nat_pmp.Refused)
        assert answer.result == nat_pmp.ResultCode.NOT_AUTHORIZED


def test_pcp_gives_another_port_unless_failure_is_preferred() -> None:
    desk = Desk()
    assert desk.result() == 0
    failing = (pcp.Option(pcp.OptionCode.PREFER_FAILURE),)
    assert desk.result(OTHER.host, options=failing) == pcp.ResultCode.CANNOT_PROVIDE_EXTERNAL
    answer = desk.pcp(OTHER.host)
    assert isinstance(answer, pcp.MapResponse)
    assert answer.external == Address(OUTSIDE, 40001)


def test_one_host_may_open_so_many_ports_and_all_hosts_so_many() -> None:
    desk = Desk(Services(ports_per_host_max=3), NatKind(forwardings_max=5))
    results = [desk.result(internal_port=port) for port in range(1, 6)]
    assert results == [0, 0, 0, pcp.ResultCode.USER_EX_QUOTA, pcp.ResultCode.USER_EX_QUOTA]
    results = [desk.result(OTHER.host, internal_port=port) for port in range(1, 4)]
    assert results == [0, 0, pcp.ResultCode.NO_RESOURCES]
    desk.now = 3 * HOUR
    assert desk.result() == 0
    assert len(desk.gateway._nonces) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x03\x01" + bytes(58), pcp.ResultCode.UNSUPP_VERSION),
        (b"\x02\x02" + bytes(58), pcp.ResultCode.UNSUPP_OPCODE),
        (b"\x02\x01" + bytes(30), pcp.ResultCode.MALFORMED_REQUEST),
        (b"\x02\x01", pcp.ResultCode.MALFORMED_REQUEST),
    ],
)
def test_what_is_no_request_of_pcp_is_told_so(data: bytes, code: int) -> None:
    answer = Desk().ask(data)
    assert answer is not None
    assert (answer[0], answer[3]) == (2, code)


def test_nat_pmp_opens_and_closes_one_port_and_all() -> None:
    desk = Desk()
    assert desk.nat_pmp(nat_pmp.AddressRequest()) == nat_pmp.AddressResponse(0, OUTSIDE)
    for port in (1, 2, 3):
        answer = desk.nat_pmp(nat_pmp.MapRequest(nat_pmp.Opcode.MAP_UDP, port, 100 + port, 7200))
        assert answer == nat_pmp.MapResponse(nat_pmp.Opcode.MAP_UDP, 0, port, 100 + port, 7200)
    assert desk.result() == 0
    for port, left in ((2, 3), (2, 3), (0, 1)):
        answer = desk.nat_pmp(nat_pmp.MapRequest(nat_pmp.Opcode.MAP_UDP, port, 0, 0))
        assert answer == nat_pmp.MapResponse(nat_pmp.Opcode.MAP_UDP, 0, port, 0, 0)
        assert len(desk.nat.forwardings(0)) == left


def test_what_nat_pmp_refuses() -> None:
    desk = Desk(Services(ports_per_host_max=0))
    for opcode, port, code in ((2, 1, 5), (1, 1, 4), (1, 0, 2)):
        answer = desk.nat_pmp(nat_pmp.MapRequest(nat_pmp.Opcode(opcode), port, 1, 7200))
        assert answer == nat_pmp.Refused(opcode, code, 0)
    assert desk.ask(b"\0\x07") == nat_pmp.encode(nat_pmp.Refused(7, 5, 0))
    assert desk.ask(b"\0\x87") is None


@pytest.mark.parametrize("pooling", Pooling)
def test_nat_pmp_tells_the_very_address_that_ports_are_opened_at(pooling: Pooling) -> None:
    desk = Desk(None, NatKind(pooling=pooling), OUTSIDE, "203.0.113.2")
    for last in range(2, 12):
        remote = f"10.0.0.{last}"
        told, opened = desk.nat_pmp(nat_pmp.AddressRequest(), remote), desk.pcp(remote)
        assert isinstance(told, nat_pmp.AddressResponse)
        assert isinstance(opened, pcp.MapResponse)
        assert opened.external.host == told.host


def test_what_is_not_offered_is_met_with_silence_or_a_refusal_of_its_version() -> None:
    only_nat_pmp = Desk(Services(pcp=False, upnp=False))
    answer = only_nat_pmp.ask(b"\x02\x01" + bytes(58))
    assert answer == nat_pmp.encode(nat_pmp.Refused(1, nat_pmp.ResultCode.UNSUPPORTED_VERSION, 0))
    assert only_nat_pmp.ask(SEARCH, port=1900) is None
    only_pcp = Desk(Services(nat_pmp=False))
    answer = only_pcp.ask(b"\0\0")
    assert answer is not None
    assert (answer[0], answer[3]) == (2, pcp.ResultCode.UNSUPP_VERSION)
    nothing = Desk(Services(pcp=False, nat_pmp=False, upnp=False))
    assert [nothing.ask(data) for data in (b"\x02\x01" + bytes(58), b"\0\0", b"")] == [None] * 3
    assert nothing.ask(b"\0\0", port=9) is None


def test_a_restart_starts_the_epoch_anew() -> None:
    desk = Desk()
    desk.now = HOUR
    announce = pcp.encode(pcp.AnnounceRequest(INSIDE.host))
    assert desk.ask(announce) == pcp.encode(pcp.PlainResponse(0, 0, 3600))
    desk.nat.reboot()
    assert desk.ask(announce) == pcp.encode(pcp.PlainResponse(0, 0, 0))
    desk.now += 7 * SECOND
    assert desk.ask(announce) == pcp.encode(pcp.PlainResponse(0, 0, 7))


@given(st.binary(max_size=1300), st.sampled_from([5351, 1900]))
def test_no_bytes_make_a_gateway_raise(data: bytes, port: int) -> None:
    desk = Desk()
    for start in (b"", b"\0", b"\0\x01", b"\x02\x01", b"M-SEARCH * HTTP/1.1\r\n"):
        desk.ask(start + data, port=port)
    assert len(desk.nat.forwardings(0)) <= 2


# UPnP.

SEARCH = (
    b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 2\r\n'
    b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
)


def posted(action: str, body: str, *, service: str = igd.SERVICE) -> bytes:
    envelope = (
        f'<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<u:{action} xmlns:u="{service}">{body}</u:{action}></s:Body></s:Envelope>'
    ).encode()
    return (
        f'POST /control HTTP/1.1\r\nHost: {OWN}:5000\r\nSOAPAction: "{service}#{action}"\r\n'
        f"Content-Type: text/xml\r\nContent-Length: {len(envelope)}\r\n\r\n"
    ).encode() + envelope


def add(*, external: int = 1234, client: str = INSIDE.host, lease: int = 3600, protocol: str = "UDP") -> bytes:
    return posted(
        "AddPortMapping",
        f"<NewRemoteHost></NewRemoteHost><NewExternalPort>{external}</NewExternalPort>"
        f"<NewProtocol>{protocol}</NewProtocol><NewInternalPort>40000</NewInternalPort>"
        f"<NewInternalClient>{client}</NewInternalClient><NewEnabled>1</NewEnabled>"
        f"<NewPortMappingDescription>Teale</NewPortMappingDescription><NewLeaseDuration>{lease}</NewLeaseDuration>",
    )


def delete(external: int = 1234) -> bytes:
    fields = f"<NewRemoteHost/><NewExternalPort>{external}</NewExternalPort><NewProtocol>UDP</NewProtocol>"
    return posted("DeletePortMapping", fields)


class Browser:
    """One HTTP connection to a gateway."""

    def __init__(self, desk: Desk, number: int = 2, client: str = INSIDE.host) -> None:
        self.desk = desk
        self.number = number
        self.closed = False
        self._take(ConnectionAccepted(number, Address(client, 1), Address(OWN, 5000)))

    def send(self, data: bytes) -> bytes:
        return self._take(DataReceived(self.number, data))

    def _take(self, event: Value) -> bytes:
        out = b""
        for effect in self.desk.gateway.handle(event, self.desk.now):
            if isinstance(effect, SendData):
                out += effect.data
            else:
                assert isinstance(effect, CloseConnection)
                self.closed = True
        return out


def status(answer: bytes) -> tuple[int, int]:
    """Return the status of HTTP, and UPnP's error code or 0."""
    head, _, body = answer.partition(b"\r\n\r\n")
    code = body and ElementTree.fromstring(body).find(".//{urn:schemas-upnp-org:control-1-0}errorCode")
    return int(head.split()[1]), int(code.text or 0) if isinstance(code, ElementTree.Element) else 0


def test_a_search_is_answered_with_where_the_description_is() -> None:
    answer = Desk().ask(SEARCH, port=1900)
    assert answer is not None
    assert b"\r\nLOCATION: http://10.0.0.1:5000/description.xml\r\n" in answer
    assert b"\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n" in answer


@pytest.mark.parametrize(
    "search",
    [
        SEARCH.replace(b"M-SEARCH", b"NOTIFY"),
        SEARCH.replace(b"Gateway", b"Toaster"),
        SEARCH.replace(b"discover", b"x"),
        SEARCH + bytes(1000),
    ],
)
def test_a_search_for_something_else_is_not_answered(search: bytes) -> None:
    assert Desk().ask(search, port=1900) is None


def test_the_description_names_the_service_and_where_to_control_it() -> None:
    answer = Browser(Desk()).send(b"GET /description.xml HTTP/1.1\r\nHost: x\r\n\r\n")
    root = ElementTree.fromstring(answer.partition(b"\r\n\r\n")[2])
    service = root.find(".//{urn:schemas-upnp-org:device-1-0}service")
    assert service is not None
    assert [element.text for element in service][:3] == [igd.SERVICE, "urn:upnp-org:serviceId:WANIPConn1", "/control"]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_upnp_opens_and_closes_a_port_however_the_bytes_are_cut(piece: int) -> None:
    desk = Desk()
    browser = Browser(desk)
    requests = posted("GetExternalIPAddress", "") + add() + delete()
    answers = b"".join(browser.send(requests[at : at + piece]) for at in range(0, len(requests), piece))
    assert answers.count(b"HTTP/1.1 200") == 3
    assert f"<NewExternalIPAddress>{OUTSIDE}</NewExternalIPAddress>".encode() in answers
    assert desk.nat.forwardings(0) == ()


def test_a_lease_of_nothing_is_as_long_as_the_gateway_grants_anything() -> None:
    desk = Desk()
    Browser(desk).send(add(lease=0))
    assert [forwarding.expires_at for forwarding in desk.nat.forwardings(0)] == [86_400 * SECOND]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (add(protocol="TCP"), (500, 501)),
        (add(external=0), (500, 501)),
        (add(client=OTHER.host), (500, 606)),
        (add(external=99999), (500, 402)),
        (add().replace(b"<NewEnabled>1", b"<NewEnabled>0"), (500, 501)),
        (add().replace(b"</s:Body>", b"</s:Bodi>"), (500, 402)),
        (add().replace(b'<?xml version="1.0"?>', b"<!DOCTYPE xml []>    "), (500, 402)),
        (add().replace(b"<NewExternalPort>1234", b"<NewExternalPort>\xff234"), (500, 402)),
        (delete(), (500, 714)),
        (delete(2222), (500, 606)),
        (posted("Explode", ""), (500, 401)),
        (posted("AddPortMapping", "", service="urn:x"), (500, 401)),
        (b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n", (404, 0)),
        (b"nonsense\r\n\r\n", (400, 0)),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000, (431, 0)),
        (b"POST /control HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"x" * 20_000, (413, 0)),
    ],
)
def test_what_upnp_refuses(request_: bytes, expected: tuple[int, int]) -> None:
    desk = Desk()
    desk.nat.open_port(OTHER, 2222, HOUR, 0)
    assert status(Browser(desk).send(request_)) == expected


def test_a_port_that_another_has_is_in_conflict() -> None:
    desk = Desk()
    assert status(Browser(desk).send(add())) == (200, 0)
    assert status(Browser(desk, 4, OTHER.host).send(add(client=OTHER.host))) == (500, 718)
    assert desk.result() == pcp.ResultCode.NOT_AUTHORIZED


def test_connections_have_a_limit_and_are_forgotten_when_they_end() -> None:
    desk = Desk()
    browsers = [Browser(desk, 2 * number) for number in range(1, CONNECTIONS_MAX + 2)]
    assert [browser.closed for browser in browsers] == [False] * CONNECTIONS_MAX + [True]
    assert browsers[-1].send(b"GET / HTTP/1.1\r\n\r\n") == b""
    desk.gateway.handle(ConnectionClosed(2, "gone"), 0)
    assert not Browser(desk, 100).closed
    browsers[1].send(b"nonsense\r\n\r\n")
    assert browsers[1].closed
    assert not Browser(desk, 102).closed


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_no_bytes_on_a_connection_make_a_gateway_raise(pieces: list[bytes]) -> None:
    desk = Desk()
    for number, start in enumerate((b"", b"POST /control HTTP/1.1\r\nHost: x\r\n", add()[:300]), 1):
        browser = Browser(desk, 2 * number)
        for piece in (start, *pieces):
            browser.send(piece)
