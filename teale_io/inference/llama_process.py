"""The node's end of a model process: frames out, frames in, and its last words."""

import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from teale_io.inference.worker_protocol import (
    FRAME_BYTES_MAX,
    FromWorker,
    ToWorker,
    decode_from_worker,
    encode,
)
from teale_proto.errors import PeerError
from teale_proto.wire.framing import FrameReader, frame

# -P: the current directory is no place to import from.
WORKER_COMMAND: Final = (sys.executable, "-P", "-m", "teale_io.inference.llama_worker")
LAST_WORDS_BYTES: Final = 2000
READ_BYTES: Final = 65536


class ModelProcess:
    """A running worker. One task at a time may receive; whoever has `turn` talks to it.

    Use `open_process`, then start `write`, `listen_to_errors` in a nursery that lives as long as the process.
    """

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.turn = trio.Semaphore(1)
        self.dead = False
        """It has ended, or is not to be trusted any more: use the next one."""
        self.fault = ""
        """Why we ended it, in words that follow "because"; "" where it ended by itself."""
        self.last_words = b""
        self._jobs = 0
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._outbox, self._unsent = trio.open_memory_channel[bytes](8)
        self._reader = FrameReader(FRAME_BYTES_MAX)
        self._received: deque[FromWorker] = deque()
        self._silent = trio.Event()

    def next_job(self) -> int:
        """Return a new job number; they only grow."""
        self._jobs += 1
        return self._jobs

    def send(self, message: ToWorker) -> None:
        """Queue a message; there are never more than a few, since only one job runs."""
        self._outbox.send_nowait(frame(encode(message)))

    async def write(self) -> None:
        """Write what is queued: in a task of its own, so that a cancelled request never leaves half a frame."""
        try:
            async for data in self._unsent:
                await self._stdin.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.dead = True

    async def receive(self) -> FromWorker | None:
        """Return the next message, or None when the process will not say anything more."""
        try:
            while not self._received:
                data = await self._stdout.receive_some(READ_BYTES)
                if not data:
                    break
                self._received.extend(decode_from_worker(payload) for payload in self._reader.frames(bytes(data)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except (PeerError, msgspec.DecodeError):
            self.kill(because="it answered nonsense")
        if not self._received:
            self.dead = True
            return None
        return self._received.popleft()

    async def listen_to_errors(self) -> None:
        """Keep the end of what the process writes to its standard error."""
        try:
            async for data in self._stderr:
                self.last_words = (self.last_words + data)[-LAST_WORDS_BYTES:]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._silent.set()

    def kill(self, *, because: str = "") -> None:
        """End the process at once: it has nothing to save."""
        if self.process.returncode is None:
            self.fault = self.fault or because
        self.dead = True
        self.process.kill()

    async def end(self) -> None:
        """Kill and reap, let the request that was running read to the end, and close the pipes."""
        self.kill()
        with trio.CancelScope(shield=True):
            await self.process.wait()
            with trio.move_on_after(1):
                await self._silent.wait()
            with trio.move_on_after(1):
                await self.turn.acquire()
                self.turn.release()
            self._outbox.close()
            self._unsent.close()
            await self._stdin.aclose()
            await self._stdout.aclose()
            await self._stderr.aclose()

    def how_it_ended(self) -> str:
        """Return what became of it, in words that follow "the model process"."""
        status = self.process.returncode
        if self.fault:
            return f"was ended because {self.fault}"
        if status is None:
            return "does not answer"
        return f"died (signal {-status})" if status < 0 else f"died (exit status {status})"


async def open_process(command: Sequence[str] = WORKER_COMMAND) -> ModelProcess:
    """Start a worker. Raises OSError."""
    pipe = subprocess.PIPE
    return ModelProcess(await trio.lowlevel.open_process(list(command), stdin=pipe, stdout=pipe, stderr=pipe))
