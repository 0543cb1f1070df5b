"""The wide area as its owner sees it: a forwarder process that is told of lines, and asked what it counted."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

from simulator.lab.errors import LabError
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
    decode_counts,
    encode_order,
)
from simulator.net.link import Link
from simulator.net.regions import Regions

_ANSWER_SECONDS: Final = 30.0


class WideArea:
    """A forwarder, which ends when this is closed, or when the process that made this is gone."""

    def __init__(self, seed: int, regions: Regions) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders = ours
        self._orders.settimeout(_ANSWER_SECONDS)
        with theirs:
            command = [sys.executable, "-m", "simulator.lab.forwarder", str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._begin = Begin(seed, regions)
        self._lines = 0

    def begin(self) -> None:
        """Wait until it is there."""
        self._tell(self._begin)

    def add_line(self, descriptor: int, name: str, link: Link, region: str, addresses: Iterable[str]) -> int:
        """Forward for a TUN device, whose descriptor is closed here; return the number of its line."""
        number = self._lines
        self._lines += 1
        try:
            self._tell(AddLine(number, name, link, region, tuple(addresses)), descriptor)
        finally:
            os.close(descriptor)
        return number

    def set_addresses(self, line: int, addresses: Iterable[str]) -> None:
        """Have other addresses found at the end of a line."""
        self._tell(SetAddresses(line, tuple(addresses)))

    def set_link(self, line: int, link: Link) -> None:
        """Exchange what a line is like."""
        self._tell(SetLink(line, link))

    def set_power(self, line: int, *, powered: bool) -> None:
        """Cut or mend a line."""
        self._tell(SetPower(line, powered))

    def set_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Let nothing pass from one line to another, for these pairs and no others."""
        self._tell(SetBlocks(tuple(pairs)))

    def counts(self) -> Counts:
        """Return what became of the packets so far."""
        return self._tell(Count())

    def close(self) -> None:
        """End it; what is under way is lost."""
        self._orders.close()
        try:
            self._process.wait(_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, order: Order, *descriptors: int) -> Counts:
        try:
            socket.send_fds(self._orders, [encode_order(order)], descriptors)
            answer = self._orders.recv(MESSAGE_BYTES_MAX)
        except OSError as error:
            raise LabError(f"the forwarder does not answer: {error}") from error
        if not answer:
            raise LabError(f"the forwarder has ended, with {self._process.wait()}")
        return decode_counts(answer)
