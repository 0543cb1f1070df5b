"""`teale chat`: one question with its answer streamed, or a conversation on a terminal."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import click
import msgspec

from teale_io.cli.app import App, json_option, pass_app
from teale_io.cli.client import Chat, NodeApi, decoded
from teale_io.cli.exits import CliError, Exit
from teale_io.cli.output import short
from teale_io.config import load_config
from teale_proto.effects import Path
from teale_proto.status import PeerStatus

_GOODBYES: Final = frozenset({"/bye", "/exit", "/quit"})

_SILENCE_SLACK_SECONDS: Final = 30
"""What the node's own deadline gets before silence counts as a timeout here."""


class _Peers(msgspec.Struct):
    connected: list[PeerStatus]


class Answer(msgspec.Struct):
    """What has come of an answer so far."""

    served_by: str
    path: str
    attempts: int
    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    seconds: float = 0.0
    seconds_to_first_token: float | None = None


@click.command()
@click.argument("words", metavar="[MODEL] [PROMPT]...", nargs=-1)
@click.option("--model", help="The model to ask; needless where only one can be asked.")
@click.option("--system", help="Instructions that come before the conversation.")
@click.option("--temperature", type=click.FloatRange(0, 2))
@click.option("--max-tokens", type=click.IntRange(1))
@click.option("--seed", type=int)
@json_option
@pass_app
def chat(app: App, /, words: tuple[str, ...], model: str | None, system: str | None, **sampling: float | None) -> None:
    """Ask a model; the answer comes from whichever node is best.

    Without PROMPT it is read from stdin, or, on a terminal, a conversation begins.
    """
    silence_seconds = load_config(app.paths.config_file).request_timeout_seconds + _SILENCE_SLACK_SECONDS
    with app.node_api() as api:
        name, prompt_words = choose_model(api.model_ids(), words, model)
        conversation = _Conversation(app, api, name, system, sampling, silence_seconds)
        prompt = " ".join(prompt_words)
        if prompt:
            conversation.ask_once(prompt)
        elif sys.stdin.isatty() and not app.out.as_json:
            conversation.run()
        else:
            conversation.ask_once(_piped_prompt())


def choose_model(available: Sequence[str], words: Sequence[str], wanted: str | None) -> tuple[str, Sequence[str]]:
    """Return the model to ask and the words of the prompt.

    The first word is a model only if one of that name can be asked; raises CliError where it is not clear which.
    """
    if wanted is None and words and words[0] in available:
        return words[0], words[1:]
    if wanted is not None and wanted in available:
        return wanted, words
    if not available:
        raise CliError(Exit.NOT_FOUND, "No node that can be reached has a model. Look at them with: teale peers")
    choice = ", ".join(available)
    if wanted is not None:
        raise CliError(Exit.NOT_FOUND, f"No node that can be reached has the model {wanted}. There are: {choice}")
    if len(available) > 1:
        raise CliError(Exit.NOT_FOUND, f"Which model? Name one as the first word or with --model. There are: {choice}")
    return available[0], words


def _piped_prompt() -> str:
    prompt = sys.stdin.read().strip()
    if not prompt:
        raise CliError(Exit.USAGE, "There is nothing to ask: give a prompt, or pipe one in.")
    return prompt


class _Conversation:
    """A model, and what was said so far."""

    def __init__(
        self,
        app: App,
        api: NodeApi,
        model: str,
        system: str | None,
        sampling: dict[str, float | None],
        silence_seconds: float,
    ) -> None:
        self._app = app
        self._api = api
        self._model = model
        self._messages = [{"role": "system", "content": system}] if system else []
        self._sampling = {name: value for name, value in sampling.items() if value is not None}
        self._silence_seconds = silence_seconds

    def ask_once(self, prompt: str) -> None:
        """Ask, and print the answer as it comes, or all of it as one JSON document."""
        answer = self._ask(prompt)
        if self._app.out.as_json:
            self._app.out.document({"model": self._model, **msgspec.to_builtins(answer)})

    def run(self) -> None:
        """Talk until the person has enough; Ctrl-C stops an answer, and at the prompt the conversation."""
        with suppress(ImportError):
            import readline  # noqa: F401 - gives `input` its line editing
        self._app.out.note(f"Talking to {self._model}. To leave: Ctrl-D or /bye")
        while True:
            try:
                prompt = input("> ").strip()
            except EOFError:
                self._app.out.line()
                return
            if prompt in _GOODBYES:
                return
            if prompt:
                self._take_turn(prompt)

    def _take_turn(self, prompt: str) -> None:
        asked = len(self._messages)
        try:
            self._ask(prompt)
        except CliError as error:
            if error.exit_code is Exit.NOT_RUNNING:
                raise
            self._app.out.error(error.exit_code, str(error))
            del self._messages[asked:]
        except KeyboardInterrupt:
            self._app.out.note("(stopped)")
            del self._messages[asked:]

    def _ask(self, prompt: str) -> Answer:
        self._messages.append({"role": "user", "content": prompt})
        body = {
            "model": self._model,
            "messages": self._messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._sampling,
        }
        asked_at = time.monotonic()
        with self._api.chat(body, silence_seconds=self._silence_seconds) as stream:
            answer = Answer(stream.served_by, stream.path, stream.attempts)
            self._receive(stream, answer, asked_at)
        answer.seconds = round(time.monotonic() - asked_at, 3)
        self._messages.append({"role": "assistant", "content": answer.text})
        self._say_who_answered(answer)
        return answer

    def _receive(self, stream: Chat, answer: Answer, asked_at: float) -> None:
        """Print and gather the chunks; a line that was begun is ended, whatever happens."""
        pieces = []
        try:
            for chunk in stream.chunks:
                piece = _take_chunk(chunk, answer)
                if piece and answer.seconds_to_first_token is None:
                    answer.seconds_to_first_token = round(time.monotonic() - asked_at, 3)
                pieces.append(piece)
                if not self._app.out.as_json:
                    self._app.out.piece(piece)
        finally:
            answer.text = "".join(pieces)
            if answer.text and not self._app.out.as_json and not answer.text.endswith("\n"):
                self._app.out.piece("\n")

    def _say_who_answered(self, answer: Answer) -> None:
        facts = [f"answered by {self._name_of(answer)}"]
        if answer.path and answer.path != Path.LOCAL.value:
            facts.append(f"over {answer.path}")
        if answer.attempts > 1:
            facts.append(f"at attempt {answer.attempts}")
        tokens = (answer.usage or {}).get("completion_tokens")
        if isinstance(tokens, int) and answer.seconds > 0:
            facts.append(f"{tokens} tokens, {tokens / answer.seconds:.1f} a second")
        self._app.out.note(", ".join(facts))

    def _name_of(self, answer: Answer) -> str:
        """Return what people call the node that answered; its id will do where the node has become silent."""
        if self._app.out.as_json or not answer.served_by:
            return answer.served_by or "an unknown node"
        if answer.path == Path.LOCAL.value:
            return "this node"
        with suppress(CliError):
            connected = decoded(self._api.get("/api/peers"), _Peers).connected
            for peer in connected:
                if peer.node_id == answer.served_by:
                    return f"{peer.display_name} ({short(peer.node_id)})"
        return short(answer.served_by)


def _take_chunk(chunk: dict[str, Any], answer: Answer) -> str:
    """Return the text in one `chat.completion.chunk`, and note what else it says."""
    if isinstance(chunk.get("usage"), dict):
        answer.usage = chunk["usage"]
    choices = chunk.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        return ""
    reason = choices[0].get("finish_reason")
    if isinstance(reason, str):
        answer.finish_reason = reason
    delta = choices[0].get("delta")
    text = delta.get("content") if isinstance(delta, dict) else None
    return text if isinstance(text, str) else ""
