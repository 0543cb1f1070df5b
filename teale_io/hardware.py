"""What this machine computes with, as other nodes are told."""

import platform
from pathlib import Path
from typing import Final

import psutil

from teale_proto.wire.relay import Hardware

_CPU_INFO: Final = Path("/proc/cpuinfo")
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


def _chip_name() -> str:
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())[:256]
