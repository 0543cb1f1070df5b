"""Options that several commands have in common, and how what is typed after them is read."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from simulator.sweep.values import axis_of, setting_of, typed

F = TypeVar("F", bound=Callable[..., Any])

FIDELITIES: Final = ("wire", "message")
_COSTS_HELP: Final = "Simulate machines as slow as this profile says, which `teale-sim calibrate` writes"


def seed_option(command: F) -> F:
    """Give a command `--seed`."""
    return click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Everything follows from it."
    )(command)


def json_option(command: F) -> F:
    """Give a command `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def knobs_options(command: F) -> F:
    """Give a command `--set` and `--fidelity`."""
    command = click.option(
        "--fidelity",
        type=click.Choice(FIDELITIES),
        help="With real packets and cryptography, or whole messages without (for 10 000 nodes and more). "
        "What the scenario says unless given.",
    )(command)
    return set_option(command)


def set_option(command: F) -> F:
    """Give a command `--set`."""
    return click.option(
        "--set",
        "settings",
        callback=_each(setting_of),
        multiple=True,
        metavar="PATH=VALUE",
        help="Turn a knob of the description, as in populations[0].count=50; again for more. "
        "VALUE is as in TOML; text needs no quotes.",
    )(command)


def costs_option(command: F) -> F:
    """Give a command `--costs`."""
    return _costs_option(f"{_COSTS_HELP}.")(command)


def several_costs_option(command: F) -> F:
    """Give a command `--costs` that may be given several times."""
    return _costs_option(f"{_COSTS_HELP}; again for more, which the seeds take in turn.", multiple=True)(command)


def knob_words(settings: Iterable[tuple[str, Any]], fidelity: str | None = None, *costs: Path | None) -> list[str]:
    """Return what is to be typed to give a command these settings again: `--set`, `--fidelity` and `--costs`."""
    words = [word for path, value in settings for word in ("--set", f"{path}={typed(value)}")]
    if fidelity is not None:
        words += ["--fidelity", fidelity]
    return words + [word for file in costs if file is not None for word in ("--costs", str(file))]


def vary_option(command: F) -> F:
    """Give a command `--vary`."""
    return click.option(
        "--vary",
        "axes",
        callback=_each(axis_of),
        multiple=True,
        metavar="PATH=VALUE,VALUE…",
        help="Run with each of these values of a knob; again for a grid of all combinations.",
    )(command)


def out_option(what: str) -> Callable[[F], F]:
    """Return what gives a command `--out`."""
    return click.option(
        "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help=f"Write {what} into DIR."
    )


def workers_option(command: F) -> F:
    """Give a command `--workers`."""
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=processors(),
        show_default="processors",
        help="Processes that share the work.",
    )(command)


def _costs_option(told: str, *, multiple: bool = False) -> Callable[[F], F]:
    """Return what gives a command `--costs`."""
    file = click.Path(dir_okay=False, path_type=Path)
    return click.option("--costs", type=file, metavar="FILE", multiple=multiple, help=told)


def _each(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[Any, ...]]:
    """Return the callback of an option that may be given several times."""

    def callback(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[Any, ...]:
        try:
            return tuple(map(read, given))
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from error

    return callback


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # systems that do not bind processes to processors
        return os.cpu_count() or 1
