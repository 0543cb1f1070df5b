"""A comparison on the disk: the page, the text, everything as JSON, and the results of the lab's runs beside them."""

import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from simulator.comparing.comparison import Comparison
from simulator.comparing.page import page
from simulator.comparing.wording import disagreements, text
from simulator.results.folder import check_writable, replace_file
from simulator.results.model import ResultsError
from simulator.results.provenance import made_by

FORMAT: Final = "teale-sim comparison"
FORMAT_VERSION: Final = 1

PAGE: Final = "comparison.html"
TEXT: Final = "comparison.txt"
JSON: Final = "comparison.json"
LAB: Final = "lab-seed-"
"""What the directories of the lab's runs begin with; their seeds follow."""
PROFILE: Final = "profile-"
"""What profiles of this machine begin with; a number follows."""


def prepare(folder: Path) -> None:
    """Make a directory for a comparison, before hours are spent on it.

    Raises ResultsError for one that holds anything but a former comparison, or that cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / JSON).is_file())):
            raise ResultsError(f"{folder}: will not be used: it holds something other than a comparison")
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
        if not (folder / JSON).exists():
            # So that a comparison that was broken off can be begun anew.
            replace_file(folder / JSON, b"{}\n")
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror or error}") from error


def lab_folder(folder: Path, seed: int) -> Path:
    """Return where the results of one run of the lab are."""
    return folder / f"{LAB}{seed}"


def profile_file(folder: Path, number: int) -> Path:
    """Return where what the machine cost before one run of the lab is, or after the last."""
    return folder / f"{PROFILE}{number}.toml"


def forget_lab(folder: Path, seed: int) -> None:
    """Remove the results of a former run of the lab."""
    shutil.rmtree(lab_folder(folder, seed), ignore_errors=True)


def write(folder: Path, comparison: Comparison, command: str) -> None:
    """Write a comparison into a directory that was prepared; raises ResultsError."""
    try:
        replace_file(folder / PAGE, page(comparison, command, made_by()).encode())
        replace_file(folder / TEXT, text(comparison).encode())
        replace_file(folder / JSON, msgspec.json.format(msgspec.json.encode(document(comparison, command))) + b"\n")
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror or error}") from error


def document(comparison: Comparison, command: str) -> dict[str, Any]:
    """Return a comparison as a document for programs; times are in microseconds."""
    found: dict[str, Any] = msgspec.to_builtins(comparison)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "command": command,
        "agrees": comparison.agrees,
        "overall": msgspec.to_builtins(comparison.overall),
        "tallies": msgspec.to_builtins(comparison.tallies),
        "disagreements": [each._asdict() for each in disagreements(comparison)],
        **found,
    }
