"""One port kept open: what the client asks, when it asks again, and whom it believes."""

from collections.abc import Callable, Sequence

import pytest

from simulator.rng import stream
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant, Value
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, DatagramReceived
from teale_proto.nat import nat_pmp, pcp
from teale_proto.nat.port_mapping import LIFETIME_SECONDS_MIN, RECOVERY_JITTER, REQUEST_GAP, PortMapping
from teale_proto.nat.port_mapping_values import (
    MappingUnwanted,
    MappingWanted,
    Patience,
    PortMappingInput,
    Protocol,
    Refusal,
    ReportPortLost,
    ReportPortMapped,
    ReportPortRefused,
    ReportPortReleased,
    ReportPortUnavailable,
    Setting,
    routable,
)

LOCAL = Address("10.0.0.2", 5555)
GATEWAY = Address("10.0.0.1", 5351)
PORT = 40000
EXTERNAL = Address("203.0.113.1", PORT)
LEASE = 7200
RETRY = Patience().retry_after


class Conversation:
    """A client, the time, and a gateway played by hand."""

    def __init__(self, setting: Setting | None = None, patience: Patience | None = None) -> None:
        setting = setting or Setting(LOCAL, GATEWAY.host, PORT, LEASE)
        self.core = PortMapping(setting, stream(1, "client", "core"), patience=patience)
        self.now: Instant = 0
        self.booted_at: Instant = -1000 * SECOND
        self.sent: list[tuple[Instant, bytes]] = []
        self.reports: list[Value] = []

    def feed(self, event: PortMappingInput) -> None:
        for effect in self.core.handle(event, self.now):
            if isinstance(effect, SendDatagram):
                assert (effect.local, effect.remote.port) == (LOCAL, 5351)
                self.sent.append((self.now, effect.data))
            else:
                self.reports.append(effect)

    def run(self, duration: Duration, answer: Callable[[bytes], bytes | None] | None = None) -> None:
        """Let time pass, with a gateway that answers at once."""
        end = self.now + duration
        while True:
            known = len(self.sent)
            if answer is None:
                pass
            elif self.sent and self.sent[-1][0] == self.now and (data := answer(self.sent[-1][1])):
                self.hear(data)
            if len(self.sent) > known:
                continue
            if self.core.deadline > end:
                break
            self.now = max(self.core.deadline, self.now)
            self.feed(WAKE)
            assert self.core.deadline > self.now
        self.now = end

    def hear(self, data: bytes, source: Address = GATEWAY, at: Address = LOCAL) -> None:
        self.feed(DatagramReceived(at, source, data))

    def epoch(self) -> int:
        return (self.now - self.booted_at) // SECOND

    @property
    def asked(self) -> pcp.MapRequest:
        request = pcp.decode_request(self.sent[-1][1])
        assert isinstance(request, pcp.MapRequest)
        return request

    def granted(self, external: Address = EXTERNAL, lifetime: int = LEASE, result: int = 0) -> bytes:
        """Return what a PCP gateway answers to the last request."""
        asked = self.asked
        return pcp.encode(
            pcp.MapResponse(
                result,
                lifetime,
                self.epoch(),
                asked.nonce,
                asked.protocol,
                asked.internal_port,
                external,
                asked.options,
            )
        )

    def speaks_pcp(self, data: bytes) -> bytes | None:
        request = pcp.decode_request(data)
        if isinstance(request, pcp.AnnounceRequest):
            return pcp.encode(pcp.PlainResponse(pcp.Opcode.ANNOUNCE, 0, self.epoch()))
        return self.granted(lifetime=LEASE if self.asked.lifetime_seconds else 0)

    def speaks_nat_pmp(self, data: bytes) -> bytes | None:
        if data[0]:
            return nat_pmp.encode(nat_pmp.Refused(data[1], nat_pmp.ResultCode.UNSUPPORTED_VERSION, self.epoch()))
        request = nat_pmp.decode_request(data)
        if isinstance(request, nat_pmp.AddressRequest):
            return nat_pmp.encode(nat_pmp.AddressResponse(self.epoch(), EXTERNAL.host))
        port = request.suggested_port if request.lifetime_seconds else 0
        return nat_pmp.encode(
            nat_pmp.MapResponse(request.opcode, self.epoch(), request.internal_port, port, request.lifetime_seconds)
        )

    def gaps(self) -> Sequence[Duration]:
        return [later - earlier for (earlier, _), (later, _) in zip(self.sent, self.sent[1:], strict=False)]


def mapped(by: Protocol = Protocol.PCP, *, check: bool = False) -> Conversation:
    talk = Conversation(patience=Patience() if check else Patience(check_every=NEVER // 4))
    talk.feed(MappingWanted())
    talk.run(0, talk.speaks_pcp if by is Protocol.PCP else talk.speaks_nat_pmp)
    assert talk.reports == [ReportPortMapped(LOCAL, EXTERNAL, LEASE * SECOND, by, routable=True)]
    return talk


def test_it_asks_by_pcp_for_its_own_port_and_reports_what_it_gets() -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    assert talk.asked == pcp.MapRequest(talk.asked.nonce, pcp.UDP, PORT, LEASE, LOCAL.host, Address("0.0.0.0", PORT))
    talk.hear(talk.granted(Address("203.0.113.1", 1234)))
    external = Address("203.0.113.1", 1234)
    assert talk.reports == [ReportPortMapped(LOCAL, external, LEASE * SECOND, Protocol.PCP, routable=True)]


@pytest.mark.parametrize(
    ("host", "global_"),
    [
        *(("203.0.113.1", True), ("8.8.8.8", True), ("2001:db8::1", True), ("100.128.0.1", True)),
        *(("100.64.0.1", False), ("100.127.255.255", False), ("10.1.2.3", False), ("192.168.1.1", False)),
        *(("172.31.0.1", False), ("127.0.0.1", False), ("fe80::1", False), ("fd00::1", False), ("host.test", False)),
    ],
)
def test_a_mapping_at_an_address_that_nobody_routes_says_so(host: str, *, global_: bool) -> None:
    assert routable(host) is global_
    if host[0].isdigit() and ":" not in host:
        talk = Conversation()
        talk.feed(MappingWanted())
        talk.hear(talk.granted(Address(host, 1)))
        assert [report.routable for report in talk.reports if isinstance(report, ReportPortMapped)] == [global_]


def test_a_silent_gateway_is_asked_by_pcp_and_then_by_nat_pmp_and_then_left_alone_for_a_while() -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    talk.run(160 * SECOND)
    assert [data[0] for _, data in talk.sent] == [2] * 3 + [0] * 9
    waits = [3000, 6000, 12000, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000]
    for gap, wait in zip(talk.gaps(), waits, strict=True):
        assert abs(gap - wait * MILLISECOND) <= (wait * MILLISECOND // 10 if wait >= 3000 and gap < 15 * SECOND else 0)
    assert talk.reports == [ReportPortUnavailable(LOCAL, RETRY)]
    talk.run(RETRY)
    assert talk.sent[12][1] == talk.sent[0][1]


def test_a_gateway_that_speaks_only_nat_pmp_says_so_and_is_asked_by_it_at_once() -> None:
    talk = mapped(Protocol.NAT_PMP)
    assert [data[:2] for _, data in talk.sent] == [b"\x02\x01", b"\x00\x00", b"\x00\x01"]
    assert talk.now == 0


@pytest.mark.parametrize("refusal", ["0281000100000708" + "00" * 52, "0181000100000708" + "00" * 16])
def test_a_gateway_of_another_version_is_asked_by_nat_pmp(refusal: str) -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    talk.hear(bytes.fromhex(refusal))
    assert talk.sent[-1][1] == nat_pmp.encode(nat_pmp.AddressRequest())
    talk.hear(bytes.fromhex(refusal))
    assert talk.reports == [ReportPortUnavailable(LOCAL, RETRY)]


def test_a_late_answer_by_pcp_is_taken_while_nat_pmp_is_being_tried() -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    late = talk.granted()
    talk.run(25 * SECOND)
    talk.hear(late)
    assert talk.reports == [ReportPortMapped(LOCAL, EXTERNAL, LEASE * SECOND, Protocol.PCP, routable=True)]
    sent = len(talk.sent)
    talk.run(100 * SECOND)
    assert len(talk.sent) == sent


@pytest.mark.parametrize("by", [Protocol.PCP, Protocol.NAT_PMP])
def test_it_renews_between_a_half_and_five_eighths_of_the_lifetime_and_reports_nothing_new(by: Protocol) -> None:
    talk = mapped(by)
    before = len(talk.sent)
    talk.run(LEASE * SECOND * 5 // 8, talk.speaks_pcp if by is Protocol.PCP else talk.speaks_nat_pmp)
    assert len(talk.sent) == before + 1
    assert talk.sent[-1][0] >= LEASE // 2 * SECOND
    assert len(talk.reports) == 1
    talk.run(10 * LEASE * SECOND, talk.speaks_pcp if by is Protocol.PCP else talk.speaks_nat_pmp)
    assert len(talk.reports) == 1


def test_renewals_without_an_answer_come_ever_closer_until_the_port_is_lost() -> None:
    talk = mapped()
    talk.run(LEASE * SECOND - 1)
    times = [at for at, _ in talk.sent[1:]]
    for number, at in enumerate(times[:8]):
        share = LEASE * SECOND >> number + 1
        assert LEASE * SECOND - share <= at <= LEASE * SECOND - share + (share >> 2)
    assert min(talk.gaps()) >= REQUEST_GAP
    assert len(times) < 14
    assert len(talk.reports) == 1
    talk.run(1)
    assert talk.reports[1:] == [ReportPortLost(LOCAL, EXTERNAL)]
    assert talk.sent[-1][0] == LEASE * SECOND


def test_a_renewal_that_is_refused_leaves_the_mapping_until_its_end() -> None:
    talk = mapped()
    talk.run(LEASE * SECOND * 5 // 8)
    talk.hear(talk.granted(result=pcp.ResultCode.NETWORK_FAILURE))
    assert len(talk.reports) == 1


@pytest.mark.parametrize(
    ("code", "lasts", "reason", "retry"),
    [
        (pcp.ResultCode.NOT_AUTHORIZED, 1800, Refusal.NOT_AUTHORIZED, 1800),
        (pcp.ResultCode.NO_RESOURCES, 0, Refusal.NO_RESOURCES, 1024),
        (pcp.ResultCode.USER_EX_QUOTA, 1, Refusal.NO_RESOURCES, 30),
        (pcp.ResultCode.ADDRESS_MISMATCH, 2**32 - 1, Refusal.ADDRESS_MISMATCH, 86400),
        (77, 60, Refusal.OTHER, 60),
    ],
)
def test_a_refusal_is_reported_and_respected(code: int, lasts: int, reason: Refusal, retry: int) -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    talk.hear(talk.granted(result=code, lifetime=lasts))
    assert talk.reports == [ReportPortRefused(LOCAL, reason, retry * SECOND)]
    talk.run(retry * SECOND - 1)
    assert len(talk.sent) == 1
    talk.run(1)
    assert len(talk.sent) == 2


def test_a_refusal_by_nat_pmp_is_reported() -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    talk.hear(nat_pmp.encode(nat_pmp.Refused(1, nat_pmp.ResultCode.UNSUPPORTED_VERSION, 1)))
    talk.hear(nat_pmp.encode(nat_pmp.Refused(0, nat_pmp.ResultCode.NETWORK_FAILURE, 1)))
    assert talk.reports == [ReportPortRefused(LOCAL, Refusal.NETWORK_FAILURE, RETRY)]


def test_releasing_asks_for_a_lifetime_of_nothing_and_ends_when_that_is_confirmed() -> None:
    talk = mapped()
    nonce = talk.asked.nonce
    talk.feed(MappingUnwanted())
    assert (talk.asked.lifetime_seconds, talk.asked.nonce, talk.asked.suggested.port) == (0, nonce, 0)
    talk.hear(talk.granted())
    assert len(talk.reports) == 1
    talk.hear(talk.granted(lifetime=0))
    assert talk.reports[1:] == [ReportPortReleased(LOCAL)]
    assert talk.core.deadline == NEVER


def test_releasing_by_nat_pmp() -> None:
    talk = mapped(Protocol.NAT_PMP)
    talk.feed(MappingUnwanted())
    assert talk.sent[-1][1] == nat_pmp.encode(nat_pmp.MapRequest(nat_pmp.Opcode.MAP_UDP, PORT, 0, 0))
    talk.run(0, talk.speaks_nat_pmp)
    assert talk.reports[1:] == [ReportPortReleased(LOCAL)]


@pytest.mark.parametrize("after", [0, 4, 30, 200])
def test_a_release_that_nobody_confirms_ends_all_the_same(after: int) -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    talk.run(after * SECOND)
    before = len(talk.sent)
    talk.feed(MappingUnwanted())
    talk.run(60 * SECOND)
    assert len(talk.sent) == before + 3
    assert talk.reports[-1] == ReportPortReleased(LOCAL)
    assert talk.core.deadline == NEVER
    talk.feed(MappingWanted())
    assert len(talk.sent) == before + 4


def test_commands_out_of_turn_are_our_own_error() -> None:
    talk = Conversation()
    with pytest.raises(LocalError, match="not wanted"):
        talk.feed(MappingUnwanted())
    talk.feed(MappingWanted())
    with pytest.raises(LocalError, match="already"):
        talk.feed(MappingWanted())
    talk.feed(MappingUnwanted())
    for command in (MappingWanted(), MappingUnwanted()):
        with pytest.raises(LocalError):
            talk.feed(command)


@pytest.mark.parametrize(
    "setting",
    [
        Setting(Address("host.test", 1), "10.0.0.1", 1),
        Setting(LOCAL, "gateway.test", 1),
        Setting(LOCAL, "fe80::1", 1),
        Setting(Address("0.0.0.0", 1), "10.0.0.1", 1),
        Setting(LOCAL, "10.0.0.1", 0),
        Setting(LOCAL, "10.0.0.1", 1, 0),
        Setting(LOCAL, "10.0.0.1", 1, 86401),
    ],
)
def test_a_setting_that_cannot_be_asked_for_is_our_own_error(setting: Setting) -> None:
    with pytest.raises(LocalError):
        PortMapping(setting, stream(1, "x", "core"))


# Gateways that restart.


def test_an_announcement_of_a_restart_has_the_port_asked_for_anew_within_five_seconds() -> None:
    talk = mapped()
    talk.run(1000 * SECOND)
    talk.booted_at = talk.now
    announcement = pcp.encode(pcp.PlainResponse(pcp.Opcode.ANNOUNCE, 0, 0))
    for _ in range(3):
        talk.hear(announcement, at=Address("224.0.0.1", pcp.CLIENT_PORT))
    talk.run(RECOVERY_JITTER, talk.speaks_pcp)
    assert len(talk.sent) == 2
    assert talk.asked.suggested == EXTERNAL
    assert len(talk.reports) == 1


def test_a_restart_that_gives_another_port_is_reported_as_a_move() -> None:
    talk = mapped()
    talk.booted_at = talk.now
    talk.hear(pcp.encode(pcp.PlainResponse(pcp.Opcode.ANNOUNCE, 0, 0)))
    talk.run(10 * SECOND)
    talk.hear(talk.granted(Address("203.0.113.9", 9)))
    assert isinstance(talk.reports[-1], ReportPortMapped)
    assert talk.reports[-1].external == Address("203.0.113.9", 9)


@pytest.mark.parametrize("by", [Protocol.PCP, Protocol.NAT_PMP])
def test_a_restart_that_nobody_announced_is_noticed_at_the_next_check(by: Protocol) -> None:
    talk = mapped(by, check=True)
    speaks = talk.speaks_pcp if by is Protocol.PCP else talk.speaks_nat_pmp
    talk.run(1200 * SECOND, speaks)
    checks = len(talk.sent)
    assert all(len(data) < 60 for _, data in talk.sent[3:])
    talk.booted_at = talk.now
    talk.run(400 * SECOND, speaks)
    assert any(data[1] == 1 for _, data in talk.sent[checks:])


def test_a_clock_that_goes_right_has_nothing_asked_anew() -> None:
    talk = mapped(check=True)
    talk.run(LEASE // 2 * SECOND - 1, talk.speaks_pcp)
    assert all(data[1] == pcp.Opcode.ANNOUNCE for _, data in talk.sent[1:])
    assert len(talk.sent) > 8


@pytest.mark.parametrize(
    ("passed", "shown", "kept"),
    [
        *((100, 1100, True), (100, 1092, True), (100, 1091, False), (1, 999, True), (1, 998, False)),
        *((100, 1108, True), (100, 1109, False), (100, 0, False)),
    ],
)
def test_how_far_clocks_may_differ(passed: int, shown: int, *, kept: bool) -> None:
    """RFC 6887, section 8.5: two seconds and a sixteenth."""
    talk = mapped()
    talk.run(passed * SECOND)
    talk.hear(pcp.encode(pcp.PlainResponse(pcp.Opcode.ANNOUNCE, 0, shown)))
    talk.run(10 * SECOND, talk.speaks_pcp)
    assert len(talk.sent) == (1 if kept else 2)


def test_a_gateway_that_shows_any_time_at_all_does_not_make_us_ask_more_than_every_few_seconds() -> None:
    talk = mapped()
    for number in range(1000):
        talk.hear(pcp.encode(pcp.PlainResponse(pcp.Opcode.ANNOUNCE, 0, number * 7919 % 1000)))
        talk.run(SECOND // 10, talk.speaks_pcp)
    assert len(talk.sent) <= 1 + 100 * SECOND // REQUEST_GAP


def test_a_lifetime_of_a_second_does_not_keep_us_busy() -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    talk.run(100 * SECOND, lambda _: talk.granted(lifetime=1))
    assert len(talk.sent) <= 1 + 100 * SECOND // REQUEST_GAP
    assert len(talk.reports) == 1
    assert isinstance(talk.reports[0], ReportPortMapped)
    assert talk.reports[0].lifetime == LIFETIME_SECONDS_MIN * SECOND


# Whom it believes.


def test_nobody_but_the_gateway_is_believed() -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    for stranger in (Address("10.0.0.1", 5352), Address("10.0.0.3", 5351), Address("203.0.113.66", 5351)):
        talk.hear(talk.granted(), source=stranger)
    talk.hear(talk.granted(), at=Address("10.0.0.2", 6666))
    assert talk.reports == []


@pytest.mark.parametrize("what", ["nonce", "protocol", "port", "external port", "external host", "lifetime"])
def test_an_answer_to_another_question_is_ignored(what: str) -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    nonce = talk.asked.nonce if what != "nonce" else bytes(12)
    external = Address("0.0.0.0" if what == "external host" else EXTERNAL.host, 0 if what == "external port" else PORT)
    talk.hear(
        pcp.encode(
            pcp.MapResponse(
                0,
                0 if what == "lifetime" else LEASE,
                1000,
                nonce,
                pcp.TCP if what == "protocol" else pcp.UDP,
                PORT + (what == "port"),
                external,
            )
        )
    )
    assert talk.reports == []


def test_an_answer_by_nat_pmp_to_a_question_by_pcp_opens_nothing() -> None:
    talk = Conversation()
    talk.feed(MappingWanted())
    talk.hear(nat_pmp.encode(nat_pmp.MapResponse(nat_pmp.Opcode.MAP_UDP, 1, PORT, PORT, LEASE)))
    talk.hear(nat_pmp.encode(nat_pmp.AddressResponse(1, EXTERNAL.host)))
    assert talk.reports == []
    assert len(talk.sent) == 1


def test_a_gateway_of_ipv6_is_not_asked_by_nat_pmp() -> None:
    core = PortMapping(Setting(Address("2001:db8::2", 1), "fe80::1", PORT), stream(1, "x", "core"))
    core.handle(MappingWanted(), 0)
    now, reports = 0, list[Value]()
    while not reports:
        now = core.deadline
        reports = [effect for effect in core.handle(WAKE, now) if not isinstance(effect, SendDatagram)]
    assert reports == [ReportPortUnavailable(Address("2001:db8::2", 1), RETRY)]
    assert now < 30 * SECOND
