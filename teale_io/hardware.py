"""What this machine computes with, as other nodes are told."""

import platform
import timeit
from pathlib import Path
from typing import Final

import psutil

from teale_proto.secure.records import Cipher
from teale_proto.wire.relay import Hardware

_CPU_INFO: Final = Path("/proc/cpuinfo")
_TRIED_BYTES: Final = 64 * 1024
_TIER_BY_RAM_GB: Final = ((192, 1), (48, 2), (12, 3))
"""A rough guess, the deployed system's scale: 1 is a backbone node, 4 a leaf."""


def this_machine() -> Hardware:
    """Return the hardware of this machine, as far as it can be told without special rights."""
    ram_gb = round(psutil.virtual_memory().total / 2**30, 1)
    return Hardware(
        chip_family=platform.machine(),
        chip_name=_chip_name(),
        total_ram_gb=ram_gb,
        tier=next((tier for least, tier in _TIER_BY_RAM_GB if ram_gb >= least), 4),
        platform=platform.system().lower(),
    )


def has_fast_aes() -> bool:
    """Return whether this machine seals faster with AES-256-GCM than with ChaCha20-Poly1305.

    Processors with instructions for AES do, by far; without them AES is as far behind. To try takes a millisecond and
    is right on every kind of processor.
    """
    return _sealing_seconds(Cipher.AES_256_GCM) < _sealing_seconds(Cipher.CHACHA20_POLY1305)


def _sealing_seconds(cipher: Cipher) -> float:
    aead, nonce, content = cipher.aead(bytes(32)), cipher.nonce(0), bytes(_TRIED_BYTES)
    # The least of several is the one that nothing else disturbed.
    return min(timeit.repeat(lambda: aead.encrypt(nonce, content, None), number=1, repeat=5))


def _chip_name() -> str:
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())[:256]
