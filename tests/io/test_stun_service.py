"""STUN at a relay: what it answers, what a forger gains, and how many addresses it remembers."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_io.stun_service import (
    REQUEST_BYTES,
    Refusal,
    StunLimits,
    StunService,
    StunSockets,
    open_stun,
    padded,
)
from teale_proto.contract import MILLISECOND, SECOND, Instant
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, DatagramReceived
from teale_proto.nat.stun import (
    ChangeRequest,
    Message,
    MessageClass,
    OtherAddress,
    ResponseOrigin,
    ResponsePort,
    XorMappedAddress,
    decode,
    encode,
)
from teale_proto.relay.limits import Flow
from tests.loopback import FIRST_HOST, SECOND_HOST, four_endpoints, udp

from .journal import DEADLINE_SECONDS
from .test_relay_app import Relay, get, relay

SERVER = Address("192.0.2.1", 3478)
OTHER = Address("192.0.2.2", 3479)
VICTIM = Address("203.0.113.9", 40000)
SHORTEST = encode(Message(MessageClass.REQUEST, bytes(12)))
OURS = padded(encode(Message(MessageClass.REQUEST, bytes(12), fingerprinted=True)))
CLASSIC = bytes.fromhex("00010000") + bytes(16)
HOUR = 3600 * SECOND


class Forger:
    """Sends requests in the name of others, and counts the bytes on both sides."""

    def __init__(self, service: StunService) -> None:
        self.service = service
        self.spent = 0
        self.reached: dict[str, int] = {}

    def send(self, data: bytes, now: Instant, victim: Address = VICTIM) -> bool:
        self.spent += len(data)
        answers = self.service.handle(DatagramReceived(SERVER, victim, data), now)
        for answer in answers:
            assert answer.remote == victim, "an answer goes nowhere else"
            self.reached[victim.host] = self.reached.get(victim.host, 0) + len(answer.data)
        return bool(answers)

    @property
    def amplification(self) -> float:
        return sum(self.reached.values()) / self.spent


def service(limits: StunLimits | None = None) -> StunService:
    return StunService(SERVER, OTHER, limits=limits)


# What a forger gains.


@pytest.mark.parametrize("request_", [SHORTEST, CLASSIC], ids=["RFC 8489", "RFC 3489"])
@pytest.mark.parametrize("a_second", [100, 1000])
def test_a_flood_at_one_victim_costs_more_than_it_carries(request_: bytes, a_second: int) -> None:
    forger = Forger(service())
    for number in range(10 * a_second):
        forger.send(request_, number * SECOND // a_second)
    assert forger.amplification < 0.1


@pytest.mark.parametrize("every", [200 * MILLISECOND, SECOND, 2 * SECOND])
def test_patience_gains_an_allowance_and_then_nothing_worth_the_trouble(every: int) -> None:
    forger = Forger(service())
    for now in range(0, HOUR, every):
        forger.send(SHORTEST, now)
    gained = forger.reached[VICTIM.host] - forger.spent
    assert gained <= 1024 + 16 * HOUR // SECOND


def test_many_victims_together_get_no_more_than_the_relay_gives_to_all() -> None:
    forger = Forger(service())
    for number in range(25_000):
        victim = Address(f"198.{18 + number % 2}.{number // 250 % 200}.{number % 250}", 40000)
        forger.send(SHORTEST, number * SECOND // 5_000, victim)
    assert sum(forger.reached.values()) - forger.spent <= (64 << 10) + (16 << 10) * 5
    assert forger.amplification < 1


def test_our_own_requests_gain_nothing_at_all() -> None:
    assert len(OURS) == REQUEST_BYTES
    six = StunService(Address("2001:db8::1", 1), Address("2001:db8::2", 2))
    remote = Address("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
    answers = six.handle(DatagramReceived(Address("2001:db8::1", 1), remote, OURS), 0)
    assert len(answers[0].data) <= len(OURS)
    forger = Forger(service())
    for number in range(1000):
        forger.send(OURS, number * SECOND // 50)
    assert forger.amplification < 1
    assert forger.service.refused == dict.fromkeys(Refusal, 0)


def test_whoever_has_used_up_the_gain_gets_answers_for_padded_requests_still() -> None:
    forger = Forger(service(StunLimits(address_gain=Flow(1, burst=40))))
    assert [forger.send(SHORTEST, 0) for _ in range(3)] == [True, False, False]
    assert forger.send(OURS, 0)


def test_a_short_request_that_is_asked_again_is_answered_when_a_little_has_come_back() -> None:
    forger = Forger(service(StunLimits(address_gain=Flow(16, burst=36))))
    # As RFC 8489 has it sent again, each wait twice as long as the one before.
    at = [0, 1, 501, 1501, 3501, 7501]
    answered = [forger.send(SHORTEST, each * MILLISECOND) for each in at]
    assert answered == [True, False, False, False, True, True]


@given(st.lists(st.tuples(st.sampled_from([SHORTEST, CLASSIC, OURS]), st.integers(0, 5 * SECOND)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_no_mixture_of_requests_gains_more_than_the_allowance(sent: list[tuple[bytes, int]]) -> None:
    forger = Forger(service(StunLimits(address_gain=Flow(16, burst=200))))
    now = 0
    for data, pause in sent:
        now += pause
        forger.send(data, now)
        assert forger.reached.get(VICTIM.host, 0) <= forger.spent + 200 + 16 * now // SECOND + 16


def test_answers_at_other_ports_are_charged_to_the_address_that_they_go_to() -> None:
    counted = service()
    reached = spent = 0
    for number in range(1000):
        wanted = (ResponsePort(1024 + number), *((ChangeRequest(address=True, port=True),) if number % 2 else ()))
        data = encode(Message(MessageClass.REQUEST, bytes(12), wanted))
        spent += len(data)
        for answer in counted.handle(DatagramReceived(SERVER, VICTIM, data), number * SECOND // 100):
            assert answer.remote == Address(VICTIM.host, 1024 + number), "no other address"
            reached += len(answer.data)
    assert counted.addresses == 1
    assert reached <= spent, "of all that a forger sends"
    assert reached - spent <= 1024 + 16 * 10


def test_a_response_is_never_answered_so_two_servers_cannot_be_set_on_each_other() -> None:
    there = service().handle(DatagramReceived(SERVER, VICTIM, SHORTEST), 0)[0].data
    assert not service().handle(DatagramReceived(SERVER, VICTIM, there), 0)
    unknown = service().handle(
        DatagramReceived(SERVER, VICTIM, SHORTEST[:2] + b"\0\4" + SHORTEST[4:] + b"\x7f\0\0\0"), 0
    )
    assert not service().handle(DatagramReceived(SERVER, VICTIM, unknown[0].data), 0)


# What is limited, and how much is remembered.


def test_each_limit_refuses_under_its_own_name_and_charges_nobody_else() -> None:
    few = Flow(1, burst=2)
    by_address = Forger(service(StunLimits(address_answers=few)))
    assert [by_address.send(OURS, 0) for _ in range(3)] == [True, True, False]
    assert by_address.send(OURS, 0, Address("203.0.113.10", 1))
    assert by_address.send(OURS, SECOND)
    by_all = Forger(service(StunLimits(total_answers=few)))
    assert [by_all.send(OURS, 0, Address(f"203.0.113.{n}", 1)) for n in (1, 2, 3)] == [True, True, False]
    gain = Forger(service(StunLimits(total_gain=Flow(1, burst=40))))
    assert [gain.send(SHORTEST, 0, Address(f"203.0.113.{n}", 1)) for n in (1, 2)] == [True, False]
    refused = [each for forger in (by_address, by_all, gain) for each in forger.service.refused.items() if each[1]]
    assert refused == [(Refusal.ADDRESS_ANSWERS, 1), (Refusal.TOTAL_ANSWERS, 1), (Refusal.TOTAL_GAIN, 1)]


def test_a_whole_customer_of_ipv6_is_one_address() -> None:
    forger = Forger(StunService(None, limits=StunLimits(address_answers=Flow(1, burst=1))))
    assert forger.send(OURS, 0, Address("2001:db8::1", 1))
    assert not forger.send(OURS, 0, Address("2001:db8::2", 1))
    assert forger.send(OURS, 0, Address("2001:db8:0:1::1", 1))


def test_only_so_many_addresses_are_remembered_the_latest_of_them() -> None:
    forger = Forger(service(StunLimits(addresses_max=100, address_answers=Flow(1, burst=1))))
    for number in range(250):
        assert forger.send(OURS, 0, Address(f"203.0.113.{number}", 1))
        assert forger.service.addresses <= 100
    assert not forger.send(OURS, 0, Address("203.0.113.249", 1)), "remembered"
    assert forger.send(OURS, 0, Address("203.0.113.0", 1)), "forgotten"


def test_whoever_has_everything_back_is_forgotten() -> None:
    forger = Forger(service())
    for number in range(100):
        forger.send(SHORTEST, 0, Address(f"203.0.113.{number}", 1))
    forger.send(SHORTEST, HOUR, Address("203.0.113.100", 1))
    assert forger.service.addresses == 1


def test_what_is_no_request_is_counted_and_not_answered() -> None:
    counted = service()
    for data in (b"", b"hello", bytes(20), SHORTEST[:-1], b"\1\1" + SHORTEST[2:]):
        assert not counted.handle(DatagramReceived(SERVER, VICTIM, data), 0)
    assert not counted.handle(DatagramReceived(Address("192.0.2.9", 1), VICTIM, SHORTEST), 0), "not our endpoint"
    assert (counted.not_stun, counted.answered, counted.addresses) == (6, 0, 0)
    assert not counted.handle(WAKE, 1)
    with pytest.raises(LocalError, match="backwards"):
        counted.handle(WAKE, 0)


def test_padding_changes_nothing_that_a_server_reads() -> None:
    request = encode(Message(MessageClass.REQUEST, bytes(12), fingerprinted=True))
    assert decode(padded(request)).not_understood == ()
    assert padded(padded(request)) == padded(request)


@given(
    st.sampled_from(["127.0.0.1", "2001:db8::1", "fe80::1%eth0", "fe80::1%2"]),
    st.sampled_from([b"", SHORTEST[:8] + bytes(12), CLASSIC]),
    st.binary(max_size=200),
)
def test_nothing_that_comes_in_breaks_the_relay(host: str, header: bytes, body: bytes) -> None:
    data = header[:2] + len(body).to_bytes(2, "big") + header[4:] + body if header else body
    for answer in StunService(None).handle(DatagramReceived(Address(host, 1), Address(host, 2), data), 0):
        assert answer.remote == Address(host, 2)


# With sockets.


def asked(host: str, port: int, data: bytes = SHORTEST) -> tuple[Message, Address]:
    """Ask with a socket of nobody in particular; return the answer and where it came from."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE_SECONDS)
        sock.sendto(data, (host, port))
        answer, name = sock.recvfrom(2000)
        message = decode(answer)
        mapped = message.get(XorMappedAddress)
        assert mapped is not None
        assert mapped.address.port == sock.getsockname()[1]
    return message, Address(*name[:2])


async def ask(host: str, port: int) -> tuple[Message, Address]:
    return await trio.to_thread.run_sync(asked, host, port)


def port_of(running: Relay) -> int:
    return int(running.url.rsplit(":", 1)[1].removesuffix("/ws"))


async def test_a_relay_answers_on_the_number_of_its_own_port() -> None:
    async with relay() as running:
        port = port_of(running)
        message, origin = await ask("127.0.0.1", port)
        assert origin == Address("127.0.0.1", port)
        assert message.get(OtherAddress) is None
        metrics = (await get(f"{running.http}/metrics")).text
        assert "teale_stun_requests_answered_total 1.0" in metrics
        assert 'teale_stun_requests_refused_total{limit="address"} 0.0' in metrics


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
async def test_a_relay_on_all_interfaces_answers_from_the_address_that_was_asked() -> None:
    async with relay("--host", "") as running:
        for host in ("127.0.0.1", "127.0.0.3", "::1"):
            message, origin = await ask(host, port_of(running))
            assert origin == Address(host, port_of(running))
            assert message.get(ResponseOrigin) == ResponseOrigin(origin)


async def test_a_second_address_makes_four_endpoints() -> None:
    async with relay("--stun-alternate", "127.0.0.2") as running:
        port = port_of(running)
        message, _ = await ask("127.0.0.1", port)
        assert message.get(OtherAddress) == OtherAddress(Address("127.0.0.2", port + 1))
        message, origin = await ask("127.0.0.2", port)
        assert (message.get(OtherAddress), origin) == (
            OtherAddress(Address("127.0.0.1", port + 1)),
            Address("127.0.0.2", port),
        )


async def test_a_relay_that_shall_not_does_not() -> None:
    async with relay("--no-stun") as running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port_of(running)))
            sock.settimeout(DEADLINE_SECONDS)
            sock.send(SHORTEST)
            with pytest.raises(ConnectionRefusedError):
                sock.recv(100)
        assert "teale_stun" not in (await get(f"{running.http}/metrics")).text


async def ended(*arguments: str) -> None:
    with trio.fail_after(DEADLINE_SECONDS), pytest.raises(AssertionError, match="ended before it listened"):
        async with relay(*arguments):
            pass


@contextlib.contextmanager
def taken() -> Iterator[int]:
    with udp(FIRST_HOST) as sock:
        yield sock.getsockname()[1]


async def test_a_port_that_is_taken_is_said_with_what_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    with taken() as port:
        await ended("--stun-port", str(port))
    said = capfd.readouterr().err
    assert said == (
        f"teale-relay: cannot answer STUN on UDP port {port}: address already in use; "
        "choose another port with --stun-port, or leave it with --no-stun\n"
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--stun-alternate", "127.0.0.1"), "differs in address and port"),
        (("--stun-alternate", "::1"), "not another address of the kind"),
        (("--stun-alternate", "example"), "does not appear to be"),
        (("--stun-alternate", "127.0.0.2:0"), "0 is no port"),
        (("--host", "", "--stun-alternate", "127.0.0.2"), "needs one first address"),
    ],
)
async def test_addresses_that_do_not_fit_are_refused(
    arguments: tuple[str, ...], why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    await ended(*arguments)
    assert "--stun-alternate: " in (said := capfd.readouterr().err)
    assert why in said


def test_where_one_socket_cannot_be_had_none_is_kept() -> None:
    with four_endpoints() as (here, there, *_):
        port, other_port = here.getsockname()[1], there.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            StunSockets(StunService(None), [Address("127.0.0.3", port), Address(FIRST_HOST, port)])
    again = open_stun(FIRST_HOST, port, alternate=f"{SECOND_HOST}:{other_port}")
    assert len(again.addresses) == 4
    again.close()
    with udp("127.0.0.3", port):
        pass
