"""How a calibration is told: the comments in the profile, the table, and the document for programs."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from simulator.calibrating.checking import checks_of
from simulator.calibrating.first_uses import NETWORK, QUIC, TLS
from simulator.calibrating.measuring import LONG_MS, alone
from simulator.calibrating.session import Measured
from simulator.costs import MachineProfile
from simulator.spec.costs_file import toml_of

FIGURES: Final = {
    "relay.forward": "relay bulk of 300 B, µs",
    "relay.wake_us": alone("relay message", 0.0, "cpu"),
    "relay.discover": "relay discover, µs",
    "relay.registration_us": "relay registration, µs",
    "relay.ping_us": "relay ping, µs",
    "relay.control_us": "relay session, µs",
    "relay.stun_us": "relay STUN, µs",
    "relay.idle_us": "relay idle, µs/s",
    "node.message": "node bulk, µs",
    "node.relayed_us": alone("node relayed", LONG_MS, "cpu"),
    "node.handshake_us": "node handshake, µs",
    "node.session_us": "node session, µs",
    "node.quic_us": "node direct path, µs",
    "node.quic_first_us": QUIC,
    "node.tls_first_us": TLS,
    "node.network_us": NETWORK,
    "node.asked_us": "node asked, µs",
    "node.served_us": "node served, µs",
    "node.piece_us": "node served a piece, µs",
    "node.start_us": "node start, µs",
    "node.idle_us": "node idle, µs/s",
    "inference.begins_after": "model, over the LAN, first token, ms",
    "node.upstream_us": "upstream served, first token, ms",
}
"""What was measured for the figure of a profile: that is what is left of it when other parts are taken away."""

_ABOUT: Final = """\
What relay, node and model cost on one machine, for `teale-sim run --costs FILE`.
Written by `teale-sim calibrate`. Microseconds of processor time unless the name says otherwise.
Where a comment says "measured", that is the whole of which the figure is a part: median over the rounds ± the
interquartile range. See docs/howto/calibrate.md for what is measured, and how."""


def machine_of(measured: Measured) -> str:
    """Return what was measured on, when and how, in a sentence."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    quiet = "quiet" if measured.was_quiet else "busy with other things"
    source = "unknown" if measured.precision is None else measured.precision.source
    processor = "a processor" if measured.hardware is None else measured.hardware.chip_name
    as_in_lab = ", with journals and neighbours as in a lab" if measured.as_in_lab else ""
    return (
        f"{when}, {processor}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; "
        f"{measured.rounds} rounds in {measured.seconds:.0f} s{as_in_lab}; the machine was {quiet} "
        f"(load {measured.load_before:.2f}); processor time by {source}"
    )


def text_of(measured: Measured, profile: MachineProfile) -> str:
    """Return the profile as TOML with comments."""
    figures = measured.samples.figures()
    notes = {path: f"measured {figures[name]}" for path, name in FIGURES.items() if name in figures}
    heading = "\n".join((_ABOUT, *(f"Note: {note}." for note in measured.notes)))
    return toml_of(profile, heading=heading, notes=notes)


def document_of(measured: Measured, profile: MachineProfile, out: Path) -> dict[str, Any]:
    """Return everything as one document."""
    return {
        "profile": profile,
        "file": str(out),
        "figures": measured.samples.figures(),
        "checks": [check._asdict() for check in checks_of(measured, profile)],
        "notes": measured.notes,
        "rounds": measured.rounds,
        "seconds": round(measured.seconds, 1),
        "load_before": measured.load_before,
    }
