"""What was asked and answered, in words; only for a page that was asked to have it."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

TEXT_MAX: Final = 20_000
"""Characters of a prompt or an answer that are shown."""


def prompt_of(body: bytes) -> str:
    """Return the words of a request: of its messages, its prompt or its input."""
    asked = _decoded(body)
    if not isinstance(asked, dict):
        return ""
    messages = asked.get("messages")
    if isinstance(messages, list):
        said = (message for message in messages if isinstance(message, dict))
        return _cut("\n".join(f"{message.get('role', '')}: {_plain(message.get('content'))}" for message in said))
    return _cut(_plain(asked.get("prompt", asked.get("input"))))


def answer_of(chunks: Iterable[bytes]) -> str:
    """Return the words of an answer, put together from its pieces."""
    return _cut("".join(_piece(_decoded(chunk)) for chunk in chunks))


def _piece(chunk: Any) -> str:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    choice = choices[0]
    part = choice.get("delta") or choice.get("message")
    return _plain(part.get("content") if isinstance(part, dict) else choice.get("text"))


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}… ({len(text) - TEXT_MAX} characters more)"
