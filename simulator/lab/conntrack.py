"""The kernel's table of connections, as far as a router's reboot needs it: everything in it is forgotten."""

import errno
import os
import socket
import struct
from typing import Final

from simulator.lab.namespaces import Namespace

_NETLINK_NETFILTER: Final = 12
_CT_DELETE: Final = 1 << 8 | 2
"""NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_DELETE; without a tuple it means all of them (<linux/netfilter/*.h>)."""
_NLM_F_REQUEST: Final = 1
_NLM_F_ACK: Final = 4
_NLMSG_ERROR: Final = 2


def flush(namespace: Namespace) -> None:
    """Have a namespace forget all connections that its NAT and its firewall know of."""

    def ask() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.bind((0, 0))
            # nlmsghdr (length, type, flags, sequence, port) and nfgenmsg (family, version, resource).
            body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
            flags = _NLM_F_REQUEST | _NLM_F_ACK
            netlink.send(struct.pack("=IHHII", 16 + len(body), _CT_DELETE, flags, 1, 0) + body)
            answer = netlink.recv(4096)
        _, kind, _, _, _, error = struct.unpack_from("=IHHIIi", answer)
        # Where there is nothing to forget, some kernels say so.
        if kind != _NLMSG_ERROR or error not in (0, -errno.ENOENT):
            raise OSError(-error, os.strerror(-error))

    namespace.call(ask)
