"""Answers in the shape of OpenAI's API, as compact JSON."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from teale_io.inference.base import Usage
from teale_proto.contract import Value
from teale_proto.inputs import Task


class TextReply(Value):
    """The wrapping of one answer: what is the same in all of its chunks."""

    task: Task
    id: str
    created: int
    """Unix time in seconds."""
    model: str

    def chunk(self, text: str, *, first: bool) -> bytes:
        """Return one streamed piece of the text."""
        return self._chunk(text, first=first, finish_reason=None)

    def last_chunk(self, finish_reason: str, *, first: bool) -> bytes:
        """Return the chunk that says why the text ended; `first` where there was no text at all."""
        return self._chunk("", first=first, finish_reason=finish_reason)

    def whole(self, text: str, finish_reason: str, usage: Usage) -> bytes:
        """Return the whole answer as one response."""
        choice: dict[str, Any] = {"index": 0}
        if self.task is Task.CHAT:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish_reason}
        return self._wrap("chat.completion", choice, usage=usage_body(usage))

    def _chunk(self, text: str, *, first: bool, finish_reason: str | None) -> bytes:
        choice: dict[str, Any] = {"index": 0}
        if self.task is Task.CHAT:
            # The role travels with the first text, not before it: until then the request may still be retried.
            delta = {"role": "assistant", "content": text} if first else {"content": text} if text else {}
            choice["delta"] = delta
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish_reason}
        return self._wrap("chat.completion.chunk", choice)

    def _wrap(self, chat_object: str, choice: dict[str, Any], **more: object) -> bytes:
        return msgspec.json.encode(
            {
                "id": self.id,
                "object": chat_object if self.task is Task.CHAT else "text_completion",
                "created": self.created,
                "model": self.model,
                "choices": [choice],
                **more,
            }
        )


def embeddings(model: str, vectors: Sequence[Sequence[float]], tokens: int, *, as_base64: bool) -> bytes:
    """Return the response to an embeddings request; `tokens` counts those of all inputs."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def usage_body(usage: Usage) -> dict[str, int]:
    """Return usage in the words of OpenAI's API."""
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
    }


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
