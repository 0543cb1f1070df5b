"""Serves the API over HTTP/1.1 with the parts of hypercorn's trio worker, one connection a task.

Hypercorn speaks HTTP; this module owns what surrounds it: the listener, the number of connections, clients that
stop reading, and the end. It differs from hypercorn's own server in three things. A connection that fails ends
alone. A send has a time limit and can be cancelled, so that a client that reads nothing holds up neither its
answer's server nor the stop of the process. And HTTP/2 is not offered: nobody needs it on the loopback interface.
"""

import errno
import logging
import socket
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework, ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp, Receive, Scope, Send

from teale_io.api.limits import DEFAULT_LIMITS, Limits
from teale_proto.errors import LocalError

_LOG: Final = logging.getLogger(__name__)

HEAD_BYTES_MAX: Final = 64 * 1024
"""A longer request head is refused with status 431."""


async def serve_api(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    limits: Limits = DEFAULT_LIMITS,
    draining: trio.Event | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled, and report the port that was bound, which for port 0 is a free one.

    Once `draining` is set, nobody new is let in, and it returns when all requests that are under way have been
    answered; the caller bounds that. Raises LocalError, before anything is reported, when it cannot listen there.
    """
    listeners = await _listen(host, port)
    server = _Server(app, limits)
    task_status.started(listeners[0].socket.getsockname()[1])
    if draining is None:
        await trio.serve_listeners(server.attend, listeners)
        return
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as listening:
            listening.start_soon(partial(trio.serve_listeners, server.attend, listeners, handler_nursery=connections))
            await draining.wait()
            listening.cancel_scope.cancel()
        await server.wait_answered()
        connections.cancel_scope.cancel()


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except socket.gaierror as error:
        raise LocalError(f"cannot listen on {host}: {error.strerror}") from error
    except OSError as error:
        raise LocalError(_why_not(error, host, port)) from error


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use by another program"
    if error.errno == errno.EACCES:
        return f"listening on port {port} is not permitted"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {host}: it is not an address of this machine"
    return f"cannot listen on {host} port {port}: {error.strerror}"


class _Exchanges:
    """The application, and how many requests it is answering."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._count = 0
        self._answered = trio.lowlevel.ParkingLot()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; when this returns, the answer has been handed to the system."""
        self._count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._count -= 1
            self._answered.unpark_all()

    async def wait_none(self) -> None:
        """Wait until no request is being answered."""
        while self._count:
            await self._answered.park()


class _Server:
    """All connections of one server."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._exchanges = _Exchanges(app)
        self._app = ASGIWrapper(cast("ASGIFramework", self._exchanges))
        self._config = _config(limits)
        self._context = WorkerContext(None)
        self._limits = limits
        self._connections = 0

    async def wait_answered(self) -> None:
        """Wait until no request is under way."""
        await self._exchanges.wait_none()

    async def attend(self, stream: trio.SocketStream) -> None:
        """Speak HTTP on one connection to its end; nothing that happens on it concerns the others."""
        if self._connections >= self._limits.connections_max:
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            await _Connection(self._app, self._config, self._context, stream, self._limits.send_seconds_max).run()
        except Exception:
            _LOG.exception("a connection to the local API failed")
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)


def _config(limits: Limits) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = _LOG
    config.include_server_header = False
    config.keep_alive_timeout = limits.idle_seconds_max
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    # It counts while an answer is on its way and the client is rightly silent; the attendant times the body.
    config.read_timeout = None
    return config


class _Connection(TCPServer):
    """One client; a send that fails or takes too long ends the connection and all that was done for it.

    Hypercorn alone would go on waiting for the rest of the request of a client that it can no longer reach.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        send_seconds_max: float,
    ) -> None:
        # Hypercorn declares a TLS stream here and takes any that has the same methods.
        super().__init__(app, config, context, ConnectionState({}), cast("Any", stream))
        self._socket = stream.socket
        self._send_seconds_max = send_seconds_max
        self._cancel_scope = trio.CancelScope()

    async def run(self) -> None:
        """Speak HTTP/1.1 until one side closes."""
        # Failing means that the client has gone before we came to it.
        with suppress(OSError):
            addresses = [
                parse_socket_addr(self._socket.family, name)
                for name in (self._socket.getpeername(), self._socket.getsockname())
            ]
            with self._cancel_scope:
                async with TaskGroup() as task_group:
                    self._task_group = task_group
                    await self._speak(task_group, *addresses)

    async def _speak(
        self, task_group: TaskGroup, client: tuple[str, int] | None, server: tuple[str, int] | None
    ) -> None:
        protocol = _Http1(
            self.app,
            self.config,
            self.context,
            task_group,
            ConnectionState(self.state),
            False,
            client,
            server,
            self.protocol_send,
        )
        self.protocol = cast("Any", protocol)
        await self.idle_task.restart(task_group, self._idle_timeout)
        await self._read_data()
        # What is still under way is for nobody, and hypercorn would wait out its keep-alive time.
        self._cancel_scope.cancel()

    async def _idle_timeout(self) -> None:
        with trio.move_on_after(self.config.keep_alive_timeout):
            await self.context.terminated.wait()
        if cast("_Http1", self.protocol).has_begun_a_request:
            _refused(f"no complete request head within {self.config.keep_alive_timeout:g} s")
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()

    async def protocol_send(self, event: Event) -> None:
        """Carry out what the protocol wants done with the connection."""
        if isinstance(event, RawData):
            await self._send(event.data)
        else:
            await super().protocol_send(event)

    async def _send(self, data: bytes) -> None:
        sent = False
        with trio.move_on_after(self._send_seconds_max), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self.send_lock:
                await self.stream.send_all(data)
            sent = True
        if not sent:
            self._cancel_scope.cancel()
            await trio.lowlevel.checkpoint_if_cancelled()


def _refused(reason: str) -> None:
    # Only programs on this machine, or a proxy of its owner's, connect here: there is nobody else to name.
    _LOG.info("a connection to the local API was refused: %s", reason)


class _Http1(H11Protocol):
    """HTTP/1.1 and nothing else."""

    @property
    def has_begun_a_request(self) -> bool:
        """Whether bytes of a request head have come, and not its end."""
        return bool(self.connection.trailing_data[0])

    async def _send_error_response(self, status_code: int) -> None:
        """Refuse what is not HTTP, and say so in the log."""
        _refused(f"not a well-formed HTTP request (status {status_code})")
        await super()._send_error_response(status_code)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1.1, where hypercorn would go over to HTTP/2."""
