"""Keeps a part of a program running: what falls over is told, cleaned up after, and started again.

Only parts that the rest can do without for a while are kept so: discovery, a backend. Where the core or the API
breaks, the whole process ends, for nobody could use what is left of it.
"""

import traceback
from collections.abc import Awaitable, Callable
from random import SystemRandom
from typing import Final

import structlog
import trio

from teale_proto.backoff import Backoff
from teale_proto.contract import SECOND, Duration

FIRST: Final[Duration] = SECOND // 10
LAST: Final[Duration] = 60 * SECOND
LASTED_SECONDS: Final = 60.0
"""Whoever ran for so long has recovered: the next restart is quick again."""

_log = structlog.get_logger()


async def keep_running(
    part: str,
    run: Callable[[], Awaitable[None]],
    *,
    fell: Callable[[], None] = lambda: None,
    first: Duration = FIRST,
    last: Duration = LAST,
) -> None:
    """Run `run` for ever, again after each error and each unasked-for return, until cancelled.

    `part` names it in the log. `fell` is called after each fall, before the pause, which grows from `first` to `last`.
    """
    backoff = Backoff(SystemRandom(), first=first, last=last)
    while True:
        began_at = trio.current_time()
        fault: Exception | None = None
        try:
            await run()
        except Exception as error:
            fault = error
        if trio.current_time() - began_at >= LASTED_SECONDS:
            backoff.reset()
        pause = backoff.next_delay() / SECOND
        log_fault(f"{part} fell over and is started again", fault, again_in_seconds=round(pause, 3))
        fell()
        await trio.sleep(pause)


def log_fault(event: str, error: Exception | None, **details: object) -> None:
    """Log where an error came from, and not its message, which may quote a prompt."""
    kinds, where = _origin(error)
    _log.error(event, error=kinds, where=where, **details)


def _origin(error: BaseException | None) -> tuple[str, list[str]]:
    if error is None:
        return "it just ended", []
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    steps = traceback.extract_tb(error.__traceback__)
    return type(error).__name__, [f"{step.filename}:{step.lineno}" for step in steps[-3:]]
