"""A GGUF model at work, through llama-cpp-python: prompts in, tokens out, stoppable at any time.

The library's token generator is used rather than its completion calls, which decode the whole text again for
every token. Runs in the worker process only: a wrong call into llama.cpp can abort it.
"""

import ctypes
import importlib
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from teale_io.inference import replies
from teale_io.inference.base import INSTALL_LLAMA, Emit, GenerationError, Usage
from teale_io.inference.requests import ChatRequest, EmbeddingRequest, Sampling, TextRequest, invalid
from teale_io.inference.stopping import StoppingText
from teale_io.inference.worker_protocol import Generate, LlamaParameters
from teale_proto.inputs import Failure

CONTEXT_DEFAULT_MAX: Final = 8192
"""Models are trained for contexts whose cache would fill the memory of most machines."""

EMBEDDING_CONTEXT_MAX: Final = 2048
PIECE_BYTES_MAX: Final = 1024
SEED_RANGE: Final = 2**32 - 1
"""llama.cpp takes 32 bits, of which the highest value means "random"."""


class CannotLoad(Exception):
    """The model cannot be used here; the text is meant for people."""


class Watch:
    """Calls `report` while work goes on, at most once every `interval` seconds."""

    def __init__(self, report: Callable[[], None], interval: float) -> None:
        self._report = report
        self._interval = interval
        self._due = time.monotonic() + interval

    def tick(self) -> None:
        """Note that something has been computed."""
        if time.monotonic() >= self._due:
            self._report()
            self._due = time.monotonic() + self._interval


class StopFlag:
    """One byte that tells the engine to stop, also in the middle of a long computation."""

    def __init__(self) -> None:
        self._byte = ctypes.create_string_buffer(2)

    def set(self) -> None:
        """Stop what is running now."""
        self._byte[0] = b"\1"

    def clear(self) -> None:
        """Allow the next job."""
        self._byte[0] = b"\0"

    def __bool__(self) -> bool:
        return self._byte[0] != b"\0"

    def watch(self, llama: Any) -> None:
        """Have the context of `llama` look at this flag between any two operations of its graph."""
        # llama.cpp asks a C function, given a pointer, whether to abort. A Python callback would take the GIL some
        # hundred times a token; C's own strlen answers the same question for a string of at most one byte.
        strlen = getattr(ctypes.CDLL(None), "strlen", None)
        if strlen is not None:
            library = importlib.import_module("llama_cpp")
            callback = ctypes.cast(strlen, library.ggml_abort_callback)
            library.llama_set_abort_callback(llama.ctx, callback, ctypes.addressof(self._byte))


class Engine:
    """One loaded model. Raises CannotLoad when it cannot be had; answers one request at a time."""

    def __init__(self, parameters: LlamaParameters, model: str, stop: StopFlag) -> None:
        try:
            # Typed as Any, since it is an optional dependency: checks must not depend on its presence.
            self._library: Any = importlib.import_module("llama_cpp")
        except ModuleNotFoundError:
            raise CannotLoad(INSTALL_LLAMA) from None
        except (ImportError, OSError, RuntimeError) as error:
            raise CannotLoad(f"llama-cpp-python cannot be loaded: {error}") from None
        self._parameters = parameters
        self._model = model
        self._stop = stop
        self._metadata = self._read_metadata()
        self.context = parameters.context or min(self._trained_context(), CONTEXT_DEFAULT_MAX)
        self._llama = self._open(n_ctx=self.context)
        self._vocabulary = self._library.llama_model_get_vocab(self._llama.model)
        self._piece = ctypes.create_string_buffer(PIECE_BYTES_MAX)
        self._format_chat = self._chat_formatter()
        self._embedder: Any = None
        self._watch: Watch | None = None
        self._evaluate = self._llama.eval
        # The library evaluates prompts through its own public method, in pieces of this size.
        self._llama.eval = self._evaluate_in_steps

    def answer(self, job: Generate, emit: Emit, watch: Watch | None = None) -> Usage:
        """Carry out one job, ticking `watch`. Raises GenerationError, with CANCELLED when the stop flag went up."""
        self._watch = watch
        try:
            if isinstance(job.request, EmbeddingRequest):
                return self._embed(job.request, emit)
            return self._write(job, job.request, emit)
        except RuntimeError:
            # The computation ended half-way, so what the context remembers is not to be relied on.
            self._llama.reset()
            if self._stop:
                raise _cancelled() from None
            raise

    # Text.

    def _write(self, job: Generate, request: TextRequest, emit: Emit) -> Usage:
        prompt = self._prompt(request)
        room = self.context - len(prompt)
        if room < 1:
            raise invalid(
                f"This model's context is {self.context} tokens, and the prompt alone has {len(prompt)}. "
                "Shorten the messages."
            )
        reply = replies.TextReply(job.task, job.reply_id, int(time.time()), self._model)
        text = StoppingText(request.stop)
        written: list[str] = []

        def put(certain: str) -> None:
            if certain and job.streaming:
                emit(reply.chunk(certain, first=not written))
            if certain:
                written.append(certain)

        budget = min(request.max_tokens or room, room)
        finish_reason, tokens_out = "length", 0
        tokens = self._sample(prompt, request.sampling)
        try:
            for token in tokens:
                if self._stop:
                    raise _cancelled()
                if self._library.llama_vocab_is_eog(self._vocabulary, token):
                    finish_reason = "stop"
                    break
                tokens_out += 1
                put(text.feed(self._bytes_of(token)))
                if text.stopped or tokens_out == budget:
                    break
        finally:
            tokens.close()
        put(text.finish())
        if text.stopped:
            finish_reason = "stop"
        usage = Usage(len(prompt), tokens_out)
        if job.streaming:
            emit(reply.last_chunk(finish_reason, first=not written))
        else:
            emit(reply.whole("".join(written), finish_reason, usage))
        return usage

    def _prompt(self, request: TextRequest) -> list[int]:
        if isinstance(request, ChatRequest):
            # A chat template writes its own beginning-of-sequence token.
            return self._tokens(self._formatted(request), begin=False)
        prompt = self._tokens(request.prompt, begin=True)
        if not prompt:
            raise invalid("'prompt' is empty, and this model cannot begin from nothing.")
        return prompt

    def _formatted(self, request: ChatRequest) -> str:
        if self._format_chat is None:
            raise invalid("This model has no usable chat template; it can be asked through /v1/completions.")
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        try:
            prompt: str = self._format_chat(messages=messages).prompt
        except Exception as error:  # Templates are programs of the model's maker and raise what they like.
            raise invalid(f"The model's chat template refuses these messages: {error}") from None
        return prompt

    def _sample(self, prompt: list[int], sampling: Sampling) -> Any:
        seed = secrets.randbelow(SEED_RANGE) if sampling.seed is None else sampling.seed % SEED_RANGE
        self._llama.set_seed(seed)
        return self._llama.generate(
            prompt,
            temp=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repeat_penalty=sampling.repeat_penalty,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
        )

    def _tokens(self, text: str, *, begin: bool) -> list[int]:
        tokens: list[int] = self._llama.tokenize(text.encode("utf-8", "replace"), add_bos=begin, special=True)
        return tokens

    def _bytes_of(self, token: int) -> bytes:
        size = self._library.llama_token_to_piece(self._vocabulary, token, self._piece, PIECE_BYTES_MAX, 0, False)
        return self._piece.raw[: max(size, 0)]

    def _evaluate_in_steps(self, tokens: list[int]) -> None:
        step = self._llama.n_batch
        for start in range(0, max(len(tokens), 1), step):
            self._evaluate(tokens[start : start + step])
            self._tick()

    def _tick(self) -> None:
        if self._watch is not None:
            self._watch.tick()

    # Embeddings.

    def _embed(self, request: EmbeddingRequest, emit: Emit) -> Usage:
        if not self._parameters.embedding:
            raise invalid("Embeddings are switched off for this model.")
        if self._embedder is None:
            self._embedder = self._open_embedder()
        size = self._embedder.n_embd()
        if request.dimensions not in (None, size):
            raise invalid(f"This model's embeddings have {size} dimensions, no other number.")
        self._refuse_long_inputs(request)
        vectors, tokens_in = [], 0
        for text in request.inputs:
            if self._stop:
                raise _cancelled()
            [vector], count = self._embedder.embed([text], normalize=True, truncate=False, return_count=True)
            self._tick()
            vectors.append(vector)
            tokens_in += count
        emit(replies.embeddings(self._model, vectors, tokens_in, as_base64=request.base64))
        return Usage(tokens_in, 0)

    def _refuse_long_inputs(self, request: EmbeddingRequest) -> None:
        for index, text in enumerate(request.inputs):
            count = len(self._tokens(text, begin=True))
            if count > self._embedder.n_batch:
                raise invalid(
                    f"Input {index} has {count} tokens, and this model embeds at most {self._embedder.n_batch}."
                )

    def _open_embedder(self) -> Any:
        context = min(self.context, EMBEDDING_CONTEXT_MAX)
        own_pooling = f"{self._metadata.get('general.architecture')}.pooling_type" in self._metadata
        pooling = "LLAMA_POOLING_TYPE_UNSPECIFIED" if own_pooling else "LLAMA_POOLING_TYPE_MEAN"
        # Pooling wants all tokens of an input in one batch.
        return self._open(
            n_ctx=context,
            n_batch=context,
            n_ubatch=context,
            embedding=True,
            pooling_type=getattr(self._library, pooling),
        )

    # Loading.

    def _open(self, **context: Any) -> Any:
        path, parameters = self._parameters.path, self._parameters
        try:
            llama = self._library.Llama(
                path,
                n_threads=parameters.n_threads,
                n_threads_batch=parameters.n_threads_batch,
                n_gpu_layers=parameters.gpu_layers,
                verbose=False,
                **context,
            )
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            raise CannotLoad(f"{path} cannot be loaded: {error}") from None
        if not context.get("vocab_only"):
            self._stop.watch(llama)
        return llama

    def _read_metadata(self) -> dict[str, str]:
        try:
            with open(self._parameters.path, "rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise CannotLoad(f"{self._parameters.path} cannot be read: {error.strerror}") from None
        if magic != b"GGUF":
            raise CannotLoad(f"{self._parameters.path} is not a GGUF file")
        llama = self._open(vocab_only=True)
        try:
            metadata: dict[str, str] = llama.metadata
        finally:
            llama.close()
        return metadata

    def _trained_context(self) -> int:
        architecture = self._metadata.get("general.architecture", "")
        return int(self._metadata.get(f"{architecture}.context_length", CONTEXT_DEFAULT_MAX))

    def _chat_formatter(self) -> Any:
        template = self._metadata.get("tokenizer.chat_template")
        if template is None:
            return None
        formats = importlib.import_module("llama_cpp.llama_chat_format")
        try:
            return formats.Jinja2ChatFormatter(
                template,
                eos_token=self._special(self._llama.token_eos()),
                bos_token=self._special(self._llama.token_bos()),
            )
        except Exception:  # A template that this Jinja cannot read leaves completions and embeddings usable.
            return None

    def _special(self, token: int) -> str:
        if token < 0:
            return ""
        text: bytes = self._library.llama_vocab_get_text(self._vocabulary, token)
        return text.decode("utf-8", "replace")


def _cancelled() -> GenerationError:
    return GenerationError(Failure.CANCELLED, "The request was cancelled.")
