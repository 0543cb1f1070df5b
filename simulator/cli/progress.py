"""Bars on stderr that say how far something is and when it will be done; where stderr is no terminal, nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from simulator.cli.output import console, neutral
from teale_proto.contract import SECOND, Duration, Instant

if TYPE_CHECKING:  # a campaign loads much that a run does not need
    from simulator.fuzz import OnProgress
    from simulator.fuzz import Progress as CampaignProgress

Advance = Callable[[], None]


class _VirtualTime(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / SECOND:.0f} of {(task.total or 0) / SECOND:.0f} s simulated")


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:.0f} of {task.total or 0:.0f}")


@contextmanager
def virtual_time(name: str, lasts: Duration) -> Iterator[Callable[[Instant], None] | None]:
    """Show how far a run is; gives what is to be told the instant, or None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    with _bar(_VirtualTime(), *_remaining()) as bar:
        task = bar.add_task(neutral(name), total=lasts)
        yield lambda at: bar.update(task, completed=at)


@contextmanager
def counted(name: str, total: int) -> Iterator[Advance]:
    """Show how many of `total` are done; gives what is to be called after each."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    with _bar(_Count(), *_remaining()) as bar:
        task = bar.add_task(neutral(name), total=total)
        yield lambda: bar.advance(task)


@contextmanager
def busy(name: str) -> Iterator[None]:
    """Show that something goes on of which nobody knows how far it is."""
    if not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(neutral(name)):
        yield


@contextmanager
def campaign() -> Iterator["OnProgress | None"]:
    """Show how far a campaign is, what it found, and its own estimate; gives what it is to tell."""
    if not sys.stderr.isatty():
        yield None
        return
    with _bar(_Count(), TextColumn("{task.fields[found]} found"), TextColumn("{task.fields[left]}")) as bar:
        task = bar.add_task("worlds", total=None, found=0, left="")

        def tell(progress: "CampaignProgress") -> None:
            left = progress.remaining_seconds
            estimate = "" if left is None else f"about {timedelta(seconds=round(max(0.0, left)))} left"
            bar.update(
                task,
                description="shrinking what was found" if progress.shrinking else "worlds",
                completed=progress.done,
                total=progress.total,
                found=progress.findings,
                left="" if progress.shrinking else estimate,
            )

        yield tell


def _ignore() -> None:
    """Nobody looks."""


def _remaining() -> tuple[ProgressColumn, ...]:
    return TextColumn("about"), TimeRemainingColumn(), TextColumn("left")


def _bar(*columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        *columns,
        console=console(stderr=True),
        transient=True,
    )
