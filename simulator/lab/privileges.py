"""What a lab needs of this machine and of whoever runs it, and how somebody who is not root becomes it for that.

Root of a user namespace of one's own is enough: all that a lab touches is in network namespaces beneath it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Final, NoReturn

from simulator.lab.errors import LabError
from simulator.lab.namespaces import Namespace, tool
from simulator.lab.tun import DEVICE

TOOLS: Final = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
"""The programs that are needed, and where they come from."""

_ALONE: Final = ("--user", "--map-root-user", "--mount", "--mount-proc", "--net", "--pid", "--fork", "--kill-child")
_NAT: Final = "table ip probe { chain out { type nat hook postrouting priority 100; masquerade fully-random; }; }"


def missing() -> list[str]:
    """Return what a lab lacks here, in words; nothing where it can be run right now."""
    if sys.platform != "linux":
        return ["the lab needs Linux"]
    lacking = [f"the program `{name}` ({source})" for name, source in TOOLS.items() if tool(name) is None]
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        lacking.append(f"a {DEVICE} that may be opened")
    if lacking:
        return lacking
    try:
        namespace = Namespace()
    except OSError as error:
        return [f"the right to make network namespaces: root, or user namespaces that are allowed ({error.strerror})"]
    with closing(namespace):
        try:
            namespace.nft(_NAT)
        except LabError as error:
            return [f"NAT by nftables in the kernel ({error})"]
    return []


def can_become_root() -> bool:
    """Return whether a user namespace may be made in which whoever asks is root."""
    unshare = tool("unshare")
    if unshare is None:
        return False
    command = [unshare, *_ALONE, "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - our own words


def become_root(argv: Sequence[str]) -> NoReturn:
    """Go on as another program, which is root in a user namespace and has all its processes killed with it."""
    unshare = tool("unshare") or "unshare"
    os.execv(unshare, [unshare, *_ALONE, *argv])  # noqa: S606 - what it is for
