"""A neighbour: a program that now and then goes over more memory than a processor's own cache holds.

In a lab dozens of programs share the processors, and what a relay left in their caches is gone when its next message
comes. A machine on which nothing but a calibration runs is kinder than that.

Run as a program: `python -m simulator.calibrating.neighbour`.
"""

import time
from typing import Final, NoReturn

MEMORY_BYTES: Final = 6 << 20
"""Three times the second cache of a core of today's servers."""
PAUSE_SECONDS: Final = 0.003
"""Less than passes between most messages of a program: in a lab whoever gets one works on it at once."""


def main() -> NoReturn:
    """Go over the memory again and again, until killed."""
    there, new = bytearray(MEMORY_BYTES), bytes(MEMORY_BYTES)
    while True:
        there[:] = new
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
