"""Memory that is kept: only where the C library can."""

import platform

from teale_io.memory import keep_freed_memory


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
