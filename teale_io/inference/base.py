"""The one small interface between a node and whatever turns its requests into tokens.

A backend says which models it serves and answers one request at a time or many; it knows nothing of peers,
jobs or cores. `manager` puts several behind one node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from teale_proto.contract import Value
from teale_proto.errors import TealeError
from teale_proto.inputs import Failure, Task

if TYPE_CHECKING:
    # The worker process imports this module too, and should not pay for trio.
    import trio

Emit: TypeAlias = Callable[[bytes], None]
"""Takes one piece of an answer: a compact JSON object in the shape of OpenAI's API."""

Changed: TypeAlias = Callable[[], None]
"""Called when the models of a backend are no longer what they were."""

INSTALL_LLAMA = "llama-cpp-python is not installed: run  pip install 'teale[llama]'"


class Usage(Value):
    """What an answer cost, in tokens of its model."""

    tokens_in: int
    tokens_out: int


class GenerationError(TealeError):
    """A backend could not answer, or not to the end; `message` is meant for whoever asked."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message


class Backend(Protocol):
    """Something that answers requests for some models."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names that it serves now."""

    @property
    def problem(self) -> str:
        """Why it serves nothing, in words for people; "" while all is well."""

    async def generate(self, task: Task, model: str, body: bytes, *, streaming: bool, emit: Emit) -> Usage:
        """Answer `body`, a request in the shape of OpenAI's API, and return what that cost.

        Streaming, `emit` gets `chat.completion.chunk` objects (for COMPLETION `text_completion`), the last with
        a `finish_reason`, and none that holds nothing but usage. Otherwise, and always for EMBEDDING, it gets one
        whole response, with `usage`. Raises GenerationError. Cancelling is prompt, and the backend stays usable.
        """

    async def run(self, changed: Changed, *, task_status: trio.TaskStatus[None]) -> None:
        """Do what has to go on for as long as the backend is used: its child process, its polling.

        Calls `changed` whenever `models` has changed. Never returns and survives every fault of the model.
        """
