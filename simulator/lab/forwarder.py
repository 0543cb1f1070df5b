"""The wide area as a process: it reads packets from TUN devices, and writes them to others when they are due.

Run as `python -m simulator.lab.forwarder DESCRIPTOR`, it takes orders from a socket and ends when that is closed, so
that it cannot outlive whoever started it. It sleeps in `select` on an epoll descriptor, whose timeouts are of
microseconds where epoll's own are of milliseconds, and watches the clock itself for the last few of them.
"""

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import time
from array import array
from contextlib import suppress
from typing import Final

from simulator.lab.orders import (
    MESSAGE_BYTES_MAX,
    AddLine,
    Begin,
    Count,
    Counts,
    Order,
    SetAddresses,
    SetBlocks,
    SetLink,
    SetPower,
    decode_order,
    encode_counts,
)
from simulator.lab.wire import Line, Wire
from simulator.net.regions import NOWHERE

PACKET_BYTES_MAX: Final = 2048
LATE_STEP_US: Final = 10
_LATE_STEPS: Final = 2000
_WATCHED_US: Final = 60
"""Shorter sleeps than this are not slept."""
_PR_SET_TIMERSLACK: Final = 29
"""From <linux/prctl.h>."""


class Forwarder:
    """The loop around a wire."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._wire = Wire(0, NOWHERE)
        self._lines: dict[int, tuple[Line, int]] = {}
        """By their numbers, with the descriptors of their devices."""
        self._by_descriptor: dict[int, Line] = {}
        self._poll = select.epoll()
        self._poll.register(orders.fileno(), select.EPOLLIN)
        self._late = array("Q", bytes(8 * _LATE_STEPS))

    def run(self) -> None:
        """Forward until whoever gives orders is gone."""
        poll, ours = self._poll, self._orders.fileno()
        descriptor_of = self._lines
        read, write, clock, late = os.read, os.write, time.monotonic_ns, self._late
        while True:
            now = clock() // 1000
            while (due := self._wire.pop(now)) is not None:
                at, line, data = due
                # A device that is down takes nothing; that is no matter of the wide area.
                with suppress(OSError):
                    write(descriptor_of[line.number][1], data)
                now = clock() // 1000
                late[min((now - at) // LATE_STEP_US, _LATE_STEPS - 1)] += 1
            ready = poll.poll(0)
            if not ready:
                self._sleep(now)
                continue
            now = clock() // 1000
            for descriptor, _ in ready:
                if descriptor != ours:
                    with suppress(OSError):
                        self._wire.send(self._by_descriptor[descriptor], read(descriptor, PACKET_BYTES_MAX), now)
                elif not self._obey():
                    return

    def _sleep(self, now: int) -> None:
        """Wait for a packet, for an order, or until the next packet is due."""
        at = self._wire.next_at
        if at is None:
            select.select((self._poll,), (), ())
        elif at - now > _WATCHED_US:
            select.select((self._poll,), (), (), (at - now - _WATCHED_US / 2) / 1e6)

    def _obey(self) -> bool:
        """Carry out one order; return whether there may be another one."""
        data, descriptors, _, _ = socket.recv_fds(self._orders, MESSAGE_BYTES_MAX, 1)
        if not data:
            return False
        answer = self._carry_out(decode_order(data), descriptors)
        self._orders.send(encode_counts(answer))
        return True

    def _carry_out(self, order: Order, descriptors: list[int]) -> Counts:
        wire = self._wire
        match order:
            case Begin(seed, regions):
                self._wire = Wire(seed, regions)
            case AddLine(number, name, link, region, addresses):
                (descriptor,) = descriptors
                os.set_blocking(descriptor, False)
                line = Line(number, name, link, region=region)
                self._lines[number] = line, descriptor
                self._by_descriptor[descriptor] = line
                wire.route(line, addresses)
                self._poll.register(descriptor, select.EPOLLIN)
            case SetAddresses(number, addresses):
                wire.route(self._lines[number][0], addresses)
            case SetLink(number, link):
                self._lines[number][0].link = link
            case SetPower(number, powered):
                self._lines[number][0].powered = powered
            case SetBlocks(pairs):
                wire.block(pairs)
            case Count():
                return self._counts()
        return Counts()

    def _counts(self) -> Counts:
        wire = self._wire
        return Counts(
            sent=wire.sent,
            delivered=wire.delivered,
            lost=wire.lost,
            overflowed=wire.overflowed,
            too_large=wire.too_large,
            blocked=wire.blocked,
            expired=wire.expired,
            unreachable=wire.unreachable,
            corrupted=wire.corrupted,
            duplicated=wire.duplicated,
            late_median_us=self._late_us(0.5),
            late_p99_us=self._late_us(0.99),
            cpu_us=time.process_time_ns() // 1000,
        )

    def _late_us(self, share: float) -> int:
        """Return by how much that share of all packets was late at most."""
        left = share * sum(self._late)
        for step, count in enumerate(self._late):
            left -= count
            if left <= 0:
                return step * LATE_STEP_US if count == 0 else (step + 1) * LATE_STEP_US
        return _LATE_STEPS * LATE_STEP_US


def prefer_us() -> None:
    """Ask the kernel to wake this process at once, as far as it may be asked; only real root may ask for all of it."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    # Nothing here makes cycles, and a collection would hold packets up.
    gc.disable()


def main() -> None:
    """Forward packets until the socket whose descriptor is the only argument is closed."""
    # Whoever presses Ctrl-C means the lab, which then takes everything down in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prefer_us()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        Forwarder(orders).run()


if __name__ == "__main__":
    main()
