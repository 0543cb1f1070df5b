"""What a relay's work costs: messages alone and in bulk, registrations, sessions, lists, pings, STUN.

A message alone costs more the longer the relay has slept before it: the kernel must wake the process, and the
processor has forgotten its code and its data. So messages are sent one by one with pauses of several lengths, and
processor time and latency are both told for each.
"""

import socket
import time
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from os import urandom
from random import SystemRandom
from typing import Final, NamedTuple

from simulator.calibrating.figures import Samples
from simulator.calibrating.measuring import Meter, Plan, kept, middle, new_identity
from simulator.calibrating.programs import LOOPBACK, Relay
from simulator.calibrating.relay_client import ANSWER_SECONDS, RelayClient, close_session, open_session
from teale_proto.nat import stun

ALONE_BYTES: Final = 300
"""Of one message by itself: a piece of an answer, or a heartbeat."""
LARGE_BYTES: Final = 16 * 1024
BULK_BYTES: Final = (ALONE_BYTES, LARGE_BYTES)
BULK_WINDOW: Final = 128
"""Messages of one connection under way at once."""
WARM_UP: Final = 500
STUN_ASKERS: Final = 12
LISTED_FEW: Final = 2
SESSION_MESSAGES: Final = 3
"""Of a session that is opened and closed: `relayOpen`, `relayReady`, `relayClose`."""
SETTLES_SECONDS: Final = 0.05

SYSTEM: Final = SystemRandom()


class _Lists(NamedTuple):
    """What a list costs, and how many nodes are in it."""

    cost: float
    listed: float


class RelayTrials:
    """All that is measured of one relay, on connections that stay."""

    def __init__(self, stack: ExitStack, relay: Relay, plan: Plan, samples: Samples) -> None:
        self._relay: Final = relay
        self._plan: Final = plan
        self._samples: Final = samples
        self._meter: Final = Meter(relay, samples)
        self._opener: Final = kept(stack, RelayClient(relay, new_identity()))
        self._target: Final = kept(stack, RelayClient(relay, new_identity()))
        self._session: Final = _session_id()
        open_session(self._opener, self._target, self._session)
        self._message: Final = urandom(ALONE_BYTES)

    def warm_up(self) -> None:
        """Do the most frequent things often enough to be past what is only done at first."""
        for _ in range(WARM_UP):
            self._pass_one()
        self._bulk(ALONE_BYTES, 8)

    def round(self) -> None:
        """Measure everything once."""
        add, meter, plan = self._samples.add, self._meter, self._plan
        for pause_ms, count in plan.alone.items():
            meter.alone("relay message", self._pass_one, pause_ms=pause_ms, count=count)
        for size in BULK_BYTES:
            windows = plan.windows if size < LARGE_BYTES else max(2, plan.windows // 4)
            cost = meter.cost_us(partial(self._bulk, size, windows))
            add(f"relay bulk of {size} B, µs", cost / (windows * BULK_WINDOW))
        add("relay ping, µs", meter.each_us(self._opener.ping, plan.others))
        add("relay STUN, µs", self._stun())
        add("relay session, µs", meter.each_us(self._open_and_close, plan.others) / SESSION_MESSAGES)
        self._register_and_list()

    # Messages.

    def _pass_one(self) -> None:
        self._opener.send(self._session, self._message)
        self._target.receive()

    def _bulk(self, size: int, windows: int) -> None:
        """Send windows of messages, each of them once the one before has arrived."""
        sent = self._opener.framed(self._session, bytes(size), BULK_WINDOW)
        for _ in range(windows):
            self._opener.socket.sendall(sent)
            for _ in range(BULK_WINDOW):
                self._target.receive()

    # Everything else.

    def _open_and_close(self) -> None:
        session = _session_id()
        open_session(self._opener, self._target, session)
        close_session(self._opener, self._target, session)

    def _register_and_list(self) -> None:
        add, clients = self._samples.add, list[RelayClient]()
        # Keys are made before, so that their making is not in the way.
        identities = [new_identity() for _ in range(self._plan.registrations)]
        with ExitStack() as stack:

            def register() -> None:
                clients.append(RelayClient(self._relay, identities[len(clients)]))
                stack.callback(clients[-1].close)

            add("relay registration, µs", self._meter.each_us(register, len(identities)))
            # Each asks once for few and once for all: who asks more often is refused.
            few, many = (self._lists(clients, at_most) for at_most in (LISTED_FEW, None))
        entry = (many.cost - few.cost) / (many.listed - few.listed)
        add("relay discover, µs", few.cost - few.listed * entry)
        add("relay discover, an entry, µs", entry)
        # What the relay does about those who have just gone is to be charged to nothing else.
        time.sleep(SETTLES_SECONDS)

    def _lists(self, clients: list[RelayClient], at_most: int | None) -> _Lists:
        turns, listed = iter(clients), list[int]()

        def ask() -> None:
            listed.append(next(turns).discover(at_most))

        return _Lists(self._meter.each_us(ask, len(clients)), middle(listed))

    def _stun(self) -> float:
        with ExitStack() as stack:
            socks = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(STUN_ASKERS)]
            for sock in socks:
                # One address gets few answers a second; the whole of 127.0.0.0/8 is loopback.
                sock.bind((f"127.{SYSTEM.randrange(1, 255)}.{SYSTEM.randrange(256)}.{SYSTEM.randrange(1, 255)}", 0))
                sock.settimeout(ANSWER_SECONDS)
                sock.connect((LOOPBACK, self._relay.port))
            turns = cycle(socks)

            def ask() -> None:
                sock = next(turns)
                sock.send(stun.encode(stun.Message(stun.MessageClass.REQUEST, urandom(12))))
                sock.recv(2048)

            return self._meter.each_us(ask, self._plan.others)


def _session_id() -> str:
    """Return an id in the form that nodes use."""
    return urandom(16).hex()
