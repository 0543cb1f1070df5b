"""A network of one's own to calibrate in: nobody outside hears of it, and nothing from outside disturbs it.

It has one address beside loopback, because nodes do not believe in loopback addresses of each other.
"""

from simulator.lab.errors import LabError
from simulator.lab.namespaces import Namespace, enter_new_network

LINES = (
    "link set lo up",
    "link add quiet type veth peer name other",
    "addr add 192.0.2.77/24 dev quiet",
    "link set quiet up",
    "link set other up",
    "route add default dev quiet",
)
WITHOUT = "this machine's own network was used, since a new one cannot be made: that needs root and the ip command"


def enter() -> bool:
    """Move this thread, and all that it starts from now on, into such a network; False where that cannot be done."""
    try:
        # Made apart first, so that a failure in the middle leaves us where we were.
        Namespace().ip(LINES)
        enter_new_network(LINES)
    except (OSError, LabError):
        return False
    return True
