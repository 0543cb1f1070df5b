"""The model process: `python -m teale_io.inference.llama_worker`, driven by `llama` over its pipes.

The main thread computes; a second one listens, so that a cancel is heard while the first is deep in C. The
process ends as soon as its standard input does, however the node went away. (Linux's parent-death signal would
be wrong here: it is bound to the thread that started us, and trio's worker threads come and go.)
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import traceback
from queue import SimpleQueue
from typing import BinaryIO

from teale_io.inference.base import GenerationError, Usage
from teale_io.inference.llama_engine import CannotLoad, Engine, StopFlag, Watch
from teale_io.inference.worker_protocol import (
    WORDS_MAX,
    WORKING_SECONDS,
    Cancel,
    Done,
    FromWorker,
    Generate,
    Load,
    Loaded,
    LoadFailed,
    Piece,
    Refused,
    Working,
    decode_to_worker,
    encode,
)
from teale_proto.inputs import Failure
from teale_proto.wire.framing import HEADER_BYTES, frame


class Worker:
    """One model, one job at a time, until end of file."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self._stop = StopFlag()
        self._cancelled = 0
        self._waiting: SimpleQueue[Load | Generate] = SimpleQueue()

    def run(self) -> None:
        """Serve until the process ends; return only when the model cannot be loaded."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        engine = self._load()
        if engine is None:
            return
        while True:
            job = self._waiting.get()
            if isinstance(job, Generate):
                self._send(self._answer(engine, job))

    def _load(self) -> Engine | None:
        load = self._waiting.get()
        if not isinstance(load, Load):
            return None
        try:
            engine = Engine(load.parameters, load.model, self._stop)
        except CannotLoad as error:
            self._send(LoadFailed(str(error)[:WORDS_MAX]))
            return None
        self._send(Loaded(engine.context))
        return engine

    def _answer(self, engine: Engine, job: Generate) -> Done | Refused:
        self._stop.clear()
        if self._cancelled >= job.job:
            # The cancel came before its job was taken up, and its flag has just been cleared.
            self._stop.set()
        try:
            watch = Watch(lambda: self._send(Working(job.job)), WORKING_SECONDS)
            usage: Usage = engine.answer(job, lambda data: self._send(Piece(job.job, data)), watch)
        except GenerationError as error:
            return Refused(job.job, error.failure, error.message[:WORDS_MAX])
        except CannotLoad as error:
            return Refused(job.job, Failure.UNAVAILABLE, str(error)[:WORDS_MAX])
        except Exception as error:
            # The message of an exception may quote the prompt, so only where it came from is written down.
            where = [f"{step.filename}:{step.lineno}" for step in traceback.extract_tb(error.__traceback__)]
            print(type(error).__name__, *where, file=sys.stderr)
            return Refused(job.job, Failure.INTERNAL_ERROR, "The model failed on this request.")
        return Done(job.job, usage.tokens_in, usage.tokens_out)

    def _send(self, message: FromWorker) -> None:
        try:
            self._sink.write(frame(encode(message)))
            self._sink.flush()
        except BrokenPipeError:
            os._exit(0)

    def _listen(self) -> None:
        try:
            while header := self._source.read(HEADER_BYTES):
                message = decode_to_worker(self._source.read(int.from_bytes(header, "big")))
                if isinstance(message, Cancel):
                    self._cancelled = message.job
                    self._stop.set()
                else:
                    self._waiting.put(message)
        finally:
            # Not sys.exit: the main thread may be computing for minutes, and nobody waits for it any more.
            os._exit(0)


def main() -> None:
    """Take over standard input and output, and serve."""
    sink = os.fdopen(os.dup(1), "wb")
    # Whatever C or Python code prints must not end up between our frames.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # Ctrl-C reaches the whole process group; the node decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError):
        import resource

        # A core file would hold prompts.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(all_threads=False)
    Worker(sys.stdin.buffer, sink).run()
    # An ordinary exit would wait for the lock of the standard input, on which the listener is blocked.
    os._exit(1)


if __name__ == "__main__":
    main()
