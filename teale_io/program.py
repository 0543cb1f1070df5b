"""How the programs of the project end: in order, with one clear sentence, or with a trace of what broke."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import NoReturn, TypeVarTuple

import click
import structlog
import trio

from teale_proto.errors import TealeError

Ts = TypeVarTuple("Ts")

_log = structlog.get_logger()


def run(name: str, serve: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
    """Run `serve` to its end; a fault ends the process with status 1.

    What is wrong with the person's set-up is a TealeError, and told in its words. Anything else is our own
    mistake: half a program would be worse than none, so the process ends and says where it broke.
    """
    try:
        trio.run(serve, *args)
    except BaseExceptionGroup as group:
        causes = list(_leaves(group))
        told = [error for error in causes if isinstance(error, TealeError)]
        if len(told) == len(causes):
            fail(name, str(told[0]))
        _log.exception(f"{name} broke")
        sys.exit(1)
    except TealeError as error:
        fail(name, str(error))
    except Exception:
        _log.exception(f"{name} broke")
        sys.exit(1)


def fail(name: str, sentence: str) -> NoReturn:
    """Say why the program cannot go on, and end it."""
    click.echo(f"{name}: {sentence}", err=True)
    sys.exit(1)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
