"""What the programs say of themselves: for people as text, for machines as one JSON object a line.

Logs go to stderr. Nothing that belongs to a user may get into them: bytes are shown as their length, fields
that could hold a secret or a payload are blanked whatever they hold, and text that a peer could have chosen is
shortened and stripped of control characters before it reaches a terminal.
"""

import logging
import sys
from enum import Enum
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

TEXT_CHARACTERS_MAX: Final = 500
LEVELS: Final = ("debug", "info", "warning", "error")
HIDDEN: Final = frozenset(
    {"answer", "authorization", "body", "chunk", "data", "key", "passphrase", "password", "payload", "private_key"}
    | {"prompt", "secret", "seed", "signature", "token"}
)
_QUIET: Final = ("websockets", "zeroconf", "httpx", "httpcore", "hypercorn", "asyncio")
"""Libraries whose finer levels quote what passes through them."""


class LogFormat(Enum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


def configure(log_format: LogFormat = LogFormat.TEXT, level: str = "info") -> None:
    """Set up all logging of the process, other libraries' included; `level` is one of LEVELS."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide,
    ]
    # The default traceback of structlog shows local variables, which may be anybody's.
    rendering: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format is LogFormat.JSON
        else [
            for_people,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            ),
        ]
    )
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def hide(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001
    """Blank what must not be logged: a structlog processor."""
    return {name: _harmless(name, value) for name, value in event.items()}


def for_people(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001
    """Show durations in units that fit them, and leave out ids where a name stands for them: a structlog processor.

    Programs get `took_seconds=0.25` and `peer_id` with 64 characters, people `took='250 ms'` and the name in `peer`.
    """
    shown: EventDict = {}
    for name, value in event.items():
        if name.endswith("_seconds") and isinstance(value, int | float):
            shown[name.removesuffix("_seconds")] = duration(value)
        elif not (name.endswith("_id") and name.removesuffix("_id") in event):
            shown[name] = value
    return shown


def duration(seconds: float) -> str:
    """Return a duration as people say it, with two figures or more."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _harmless(name: str, value: object) -> object:
    if name in HIDDEN:
        return "(hidden)"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value)} bytes)"
    if isinstance(value, str):
        shown = value if len(value) <= TEXT_CHARACTERS_MAX else f"{value[:TEXT_CHARACTERS_MAX]}…"
        return shown if shown.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in shown)
    return value
