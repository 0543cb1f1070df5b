"""How the C library gives memory back to the system.

Left alone, it returns what a large message has freed at once and fetches it again for the next one, page by page;
with messages of a mebibyte that costs more than encrypting them. A program that moves many keeps some instead.
"""

import ctypes
from typing import Final

KEPT_BYTES_MAX: Final = 32 << 20
"""So much that is free is kept at most."""
OWN_MAPPING_BYTES: Final = 8 << 20
"""Only what is at least that large is fetched and given back by itself."""

# malloc.h of the GNU C library, mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, within bounds; return False where the C library knows no such thing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX) and mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES))
