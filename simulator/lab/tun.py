"""TUN devices: network interfaces whose packets a process reads and writes, one a time, as they are on the wire."""

import os
import struct
from fcntl import ioctl
from typing import Final

from simulator.lab.namespaces import Namespace

DEVICE: Final = "/dev/net/tun"

_TUNSETIFF: Final = 0x4004_54CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
"""From <linux/if_tun.h>: IP packets, and nothing in front of them."""


class Tun:
    """A TUN device, there for as long as any process has its descriptor."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        """Make it in a namespace."""
        self._descriptor = _open(namespace, name)

    def give(self) -> int:
        """Return the descriptor, which is the caller's to close from now on."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def close(self) -> None:
        """Take it away, if nobody else has it."""
        if self._descriptor >= 0:
            os.close(self.give())


def _open(namespace: Namespace, name: str) -> int:

    def make() -> int:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    return namespace.call(make)
