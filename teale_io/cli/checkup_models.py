"""What `teale doctor` finds out about the models: does each load, and does it answer with one token.

While the node runs, it is asked, unless it is busy; otherwise each backend is started for as long as the check
takes.
"""

import time
from typing import Any, Final

import httpx
import msgspec
import trio

from teale_io.cli.checkup import Finding, fail, milliseconds, ok, warn
from teale_io.cli.output import short
from teale_io.cli.views import NodeView
from teale_io.config import Config
from teale_io.inference.base import Backend, GenerationError
from teale_io.node_app import backends_of
from teale_proto.inputs import Failure, Task

LOAD_SECONDS: Final = 120.0
ANSWER_SECONDS: Final = 60.0
MODELS_ASKED_MAX: Final = 4
"""Of a server with hundreds of models, a few stand for all."""

_MODELS: Final = "models"
_ADVICE: Final = "See that the file or server in the configuration is the right one: teale config list"


def no_models(config: Config) -> Finding | None:
    """Return the finding of a node that is to serve nothing, None for any other."""
    if config.builtin_model or config.gguf_models or config.openai_urls:
        return None
    return ok(_MODELS, "none are to be served here; this node asks others (to try one: builtin_model true)")


def in_the_node(node: NodeView, url: str) -> list[Finding]:
    """Have the running node's models answer with a token each; one that is busy is left alone."""
    findings = [fail(_MODELS, problem, _ADVICE) for problem in node.problems]
    if node.running or node.queue_depth:
        waiting = f"{node.running} running, {node.queue_depth} waiting"
        return [*findings, ok(_MODELS, f"the node is busy ({waiting}), and is not asked anything")]
    if not node.loaded_models and not findings:
        return [warn(_MODELS, "none is loaded yet", "Wait until it is, and look again: teale status")]
    return findings + [_ask_node(node, url, model) for model in node.loaded_models[:MODELS_ASKED_MAX]]


def by_itself(config: Config) -> list[Finding]:
    """Load each of the configured models and have it answer with a token."""

    async def run() -> list[Finding]:
        return [await _try(backend) for backend in backends_of(config)]

    return trio.run(run)


def _ask_node(node: NodeView, url: str, model: str) -> Finding:
    body = msgspec.to_builtins({"model": model, **_question()})
    began_at = time.perf_counter()
    try:
        response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=ANSWER_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        return fail(_MODELS, f"{model} does not answer ({type(error).__name__})", "Look at the node: teale status")
    seconds = time.perf_counter() - began_at
    if response.is_error:
        return fail(_MODELS, f"{model} does not answer: {_message(response)}", "Look at the node's log.")
    server = response.headers.get("x-teale-served-by", "")
    if server != node.node_id:
        return warn(
            _MODELS,
            f"{model}: not this node but {short(server)} answered, in {milliseconds(seconds)}",
            f"To see why: teale route {model} --explain",
        )
    return ok(_MODELS, f"{model} answers a token in {milliseconds(seconds)}")


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"


async def _try(backend: Backend) -> Finding:
    news = trio.Event()
    began_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(backend.run, news.set)
        with trio.move_on_after(LOAD_SECONDS):
            # Not every problem is announced, so it is looked for.
            while not (backend.models or backend.problem):
                with trio.move_on_after(0.05):
                    await news.wait()
        finding = await _ask_backend(backend, trio.current_time() - began_at)
        nursery.cancel_scope.cancel()
    return finding


async def _ask_backend(backend: Backend, loading_seconds: float) -> Finding:
    if not backend.models:
        return fail(_MODELS, backend.problem or f"nothing was loaded within {LOAD_SECONDS:g} s", _ADVICE)
    model = backend.models[0]
    more = f" (and {len(backend.models) - 1} more)" if len(backend.models) > 1 else ""
    body = msgspec.json.encode({"model": model, **_question()})
    began_at = trio.current_time()
    try:
        with trio.fail_after(ANSWER_SECONDS):
            await backend.generate(Task.CHAT, model, body, streaming=False, emit=_ignore)
    except GenerationError as error:
        if error.failure is Failure.INVALID_REQUEST:  # one for embeddings, or without a chat template
            return ok(_MODELS, f"{model}{more} is there, but does not chat: {error.message}")
        return fail(_MODELS, f"{model}{more} does not answer: {error.message}", _ADVICE)
    except trio.TooSlowError:
        return fail(_MODELS, f"{model}{more} did not answer within {ANSWER_SECONDS:g} s", _ADVICE)
    answer_seconds = trio.current_time() - began_at
    return ok(
        _MODELS,
        f"{model}{more} was there in {milliseconds(loading_seconds)} and answers a token in "
        f"{milliseconds(answer_seconds)}",
    )


def _question() -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "temperature": 0}


def _ignore(_piece: bytes) -> None:
    """Let be what is of no interest here."""
