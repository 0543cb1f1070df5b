"""From what serving nodes send to what OpenAI's clients expect; pure functions and plain collectors.

A serving node is a stranger: each piece is decoded and checked before a client sees any of it. Pieces of one
answer get one id, since a client tells answers apart by it. Nodes of the deployed system send chunks whatever
was asked, and some backends whole answers; so a stream takes whole answers as well, and a whole answer is
collected from chunks.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from teale_io.api.encoding import decode_object, encode_object
from teale_proto.effects import ReportFinished
from teale_proto.errors import PeerError
from teale_proto.inputs import Task

CHOICES_MAX: Final = 128
TOOL_CALLS_MAX: Final = 128


class _Names(NamedTuple):
    piece: str
    whole: str
    id_prefix: str


_NAMES: Final = {
    Task.CHAT: _Names("chat.completion.chunk", "chat.completion", "chatcmpl-"),
    Task.COMPLETION: _Names("text_completion", "text_completion", "cmpl-"),
}


class Stamp:
    """What all pieces of one answer have in common."""

    def __init__(self, task: Task, model: str, *, token: str, created: int) -> None:
        """`token` is a random string and `created` a Unix time in seconds."""
        self.is_chat = task is Task.CHAT
        self._names = _NAMES[task]
        self._id = self._names.id_prefix + token
        self._created = created
        self._model = model

    def piece(self, choices: list[Any], **more: object) -> dict[str, Any]:
        """Return the members of one chunk."""
        return self._members(self._names.piece, choices) | more

    def whole(self, choices: list[Any], **more: object) -> dict[str, Any]:
        """Return the members of a complete answer."""
        return self._members(self._names.whole, choices) | more

    def _members(self, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }


class Piece(NamedTuple):
    """One checked piece of an answer to a chat or completion request."""

    members: dict[str, Any]
    choices: list[dict[str, Any]]
    """Empty in a piece that only tells the usage."""
    usage: dict[str, Any] | None

    @property
    def is_whole(self) -> bool:
        """Whether this can be a complete answer, if it is the only piece."""
        return all("message" in choice or "text" in choice for choice in self.choices)


def read_piece(data: bytes) -> Piece:
    """Return a piece of an answer; raise PeerError when it is none, or an error in the place of one."""
    members = decode_object(data)
    if members.get("error"):
        raise PeerError("the serving node sent an error in the place of an answer")
    choices = members.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise PeerError("the serving node sent something other than an answer")
    if len(choices) > CHOICES_MAX:
        raise PeerError("the serving node sent too many choices")
    usage = members.get("usage")
    return Piece(members, choices, usage if isinstance(usage, dict) else None)


def stream_chunk(stamp: Stamp, piece: Piece, *, usage_wanted: bool) -> bytes | None:
    """Return the chunk to stream for `piece`, or None for one that only tells the usage."""
    if not piece.choices:
        return None
    choices = [_as_delta(choice) for choice in piece.choices]
    # OpenAI's streams that end with a usage chunk say `"usage": null` in all others.
    common = stamp.piece(choices, **({"usage": None} if usage_wanted else {}))
    extra = {name: value for name, value in piece.members.items() if name not in common and name != "usage"}
    return encode_object({**common, **extra})


def usage_chunk(stamp: Stamp, usage: dict[str, Any]) -> bytes:
    """Return the last chunk of a stream whose client asked for the usage."""
    return encode_object(stamp.piece([], usage=usage))


def usage_of(finished: ReportFinished, told: dict[str, Any] | None) -> dict[str, Any]:
    """Return the usage as counted by the protocol, or as the answer itself told it where that counted nothing."""
    if told is not None and not finished.tokens_in and not finished.tokens_out:
        return told
    return {
        "prompt_tokens": finished.tokens_in,
        "completion_tokens": finished.tokens_out,
        "total_tokens": finished.tokens_in + finished.tokens_out,
    }


def read_embeddings(pieces: Iterable[bytes]) -> bytes:
    """Return the one piece of an answer to an embeddings request; raise PeerError when it is not that."""
    whole = list(pieces)
    if len(whole) != 1:
        raise PeerError("the serving node sent embeddings in pieces")
    members = decode_object(whole[0])
    if members.get("error") or not isinstance(members.get("data"), list):
        raise PeerError("the serving node sent something other than embeddings")
    return whole[0]


def join_pieces(stamp: Stamp, pieces: Iterable[Piece], finished: ReportFinished) -> bytes:
    """Return the complete answer that `pieces` make; a whole answer stays as it is, with the usage added."""
    kept = list(pieces)
    told = next((piece.usage for piece in reversed(kept) if piece.usage is not None), None)
    usage = usage_of(finished, told)
    spoken = [piece for piece in kept if piece.choices]
    if len(spoken) == 1 and spoken[0].is_whole:
        return encode_object({**stamp.whole([]), **spoken[0].members, "usage": spoken[0].usage or usage})
    collected: dict[int, _Choice] = {}
    for piece in spoken:
        for choice in piece.choices:
            index = _index(choice)
            if index not in collected and len(collected) >= CHOICES_MAX:
                raise PeerError("the serving node sent too many choices")
            collected.setdefault(index, _Choice()).add(_as_delta(choice))
    if not collected:
        collected[0] = _Choice()
    choices = [collected[index].whole(index, chat=stamp.is_chat) for index in sorted(collected)]
    return encode_object(stamp.whole(choices, usage=usage))


def _as_delta(choice: dict[str, Any]) -> dict[str, Any]:
    if "message" not in choice or "delta" in choice:
        return choice
    return {("delta" if name == "message" else name): value for name, value in choice.items()}


def _index(entry: dict[str, Any]) -> int:
    index = entry.get("index", 0)
    return index if isinstance(index, int) else 0


class _Texts:
    """Strings that arrive in pieces, by name; joined once, so that a long answer costs its length."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {}

    def add(self, members: dict[str, Any], *, besides: frozenset[str]) -> None:
        for name, value in members.items():
            if isinstance(value, str) and name not in besides:
                self._pieces.setdefault(name, []).append(value)

    def joined(self) -> dict[str, str]:
        return {name: "".join(pieces) for name, pieces in self._pieces.items()}


class _ToolCall:
    """One call of a tool, whose arguments come in pieces."""

    def __init__(self) -> None:
        self._members: dict[str, Any] = {"id": "", "type": "function"}
        self._name = ""
        self._texts = _Texts()

    def add(self, call: dict[str, Any]) -> None:
        self._members |= {name: call[name] for name in ("id", "type") if isinstance(call.get(name), str)}
        function = call.get("function")
        if isinstance(function, dict):
            self._name = function["name"] if isinstance(function.get("name"), str) else self._name
            self._texts.add(function, besides=frozenset({"name"}))

    def whole(self) -> dict[str, Any]:
        return {**self._members, "function": {"name": self._name, "arguments": "", **self._texts.joined()}}


class _Choice:
    """One choice of a complete answer, collected from the choices of chunks."""

    def __init__(self) -> None:
        self._outer = _Texts()
        self._inner = _Texts()
        self._tool_calls: dict[int, _ToolCall] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._finish_reason: str | None = None

    def add(self, choice: dict[str, Any]) -> None:
        if isinstance(choice.get("finish_reason"), str):
            self._finish_reason = choice["finish_reason"]
        self._outer.add(choice, besides=frozenset({"finish_reason"}))
        if isinstance(choice.get("logprobs"), dict):
            for name, entries in choice["logprobs"].items():
                if isinstance(entries, list):
                    self._logprobs.setdefault(name, []).extend(entries)
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._inner.add(delta, besides=frozenset({"role"}))
            self._add_tool_calls(delta.get("tool_calls"))

    def _add_tool_calls(self, calls: object) -> None:
        if not isinstance(calls, list):
            return
        for call in calls:
            if not isinstance(call, dict):
                continue
            index = _index(call)
            if index not in self._tool_calls and len(self._tool_calls) >= TOOL_CALLS_MAX:
                raise PeerError("the serving node sent too many tool calls")
            self._tool_calls.setdefault(index, _ToolCall()).add(call)

    def whole(self, index: int, *, chat: bool) -> dict[str, Any]:
        texts: dict[str, Any] = self._outer.joined()
        if chat:
            calls = [self._tool_calls[key].whole() for key in sorted(self._tool_calls)]
            content: dict[str, Any] = {"content": None if calls else ""}
            message = {"role": "assistant", **content, **self._inner.joined()}
            texts["message"] = message | ({"tool_calls": calls} if calls else {})
        else:
            texts.setdefault("text", "")
        return {"index": index, **texts, "logprobs": self._logprobs or None, "finish_reason": self._finish_reason}
