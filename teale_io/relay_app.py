"""`teale-relay`: the program around a relay core."""

import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NoReturn, get_args

import click
import structlog
import trio

from teale_io import logs
from teale_io.clock import unix_time_at_zero
from teale_io.connections import MIB, PARTING_SECONDS, Connections, reason_of
from teale_io.journal import JournalFile, create_journal, entropy, journal_options
from teale_io.listener import Listener, bind
from teale_io.memory import keep_freed_memory
from teale_io.relay_access import PROXY_HEADERS, X_FORWARDED_FOR, Access, Network
from teale_io.relay_files import Certificate, Tokens
from teale_io.relay_http import pages
from teale_io.relay_options import NetworkOption, traffic, unlimited
from teale_io.reloading import Reloadable, Reloader
from teale_io.runner import Runner
from teale_io.stream import address_of
from teale_io.stun_metrics import StunMetrics
from teale_io.stun_service import StunSockets, open_stun
from teale_io.websocket_server import WebSocketServer
from teale_proto.contract import SECOND, Core, Value
from teale_proto.effects import RelayEffect, ReportConnection, ReportRefusal
from teale_proto.errors import TealeError
from teale_proto.inputs import Address, DrainRequested, RelayInput, StopRequested
from teale_proto.journal import RelayMade
from teale_proto.relay.server import RelayServer, RelayServerConfig

FILES_BESIDE_CONNECTIONS: Final = 100
HANDSHAKES: Final = 64
"""Connections of one address that may be between their first byte and an open WebSocket, or read a page."""
PORTS_TO_TRY: Final = 16
"""Where any port will do: a free port for TCP may be taken for UDP."""
UNSENT_IN_KERNEL_BYTES: Final = 256 * 1024
"""What the kernel takes and has not sent yet cannot be overtaken any more, so it gets little at a time."""
ENVELOPE_BYTES: Final = 1 << 16
"""By so much a WebSocket message may exceed what the core takes, so that the core can say what is wrong with it."""

_log = structlog.get_logger()


class RelayOptions(Value):
    """How the program is run; `names` are the host names under which nodes reach it. A rate or limit of 0 is none."""

    host: str = "127.0.0.1"
    port: int = 11437
    names: tuple[str, ...] = ()
    allow_legacy_register: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
    trusted_proxies: tuple[Network, ...] = ()
    proxy_header: str = X_FORWARDED_FOR
    connections_max: int = 20_000
    connections_per_address: int = 256
    registrations_max: int = 20_000
    sessions_max: int = 40_000
    message_bytes_max: int = MIB
    unsent_bytes_max: int = 4 * MIB
    client_messages: int = 5_000
    client_bytes: int = 32 * MIB
    address_messages: int = 20_000
    address_bytes: int = 64 * MIB
    total_messages: int = 200_000
    total_bytes: int = 512 * MIB
    stun: bool = True
    stun_port: int | None = None
    stun_address: str = ""
    stun_alternate: str = ""
    drain_seconds: float = 10
    reload_seconds: float = 10


_COUNT = click.IntRange(min=0)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help='Address to listen on; "" is all of them.')
@click.option("--port", default=11437, show_default=True, type=click.IntRange(0, 65535), help="0 is any free port.")
@click.option("--name", "names", multiple=True, help="Public host name of this relay; may be given more than once.")
@click.option("--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="Certificate chain (PEM): serve wss.")
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="Its key, unless it is in the chain.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Let in only who has one of these tokens: one a line, then a name if you like.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    type=NetworkOption(),
    help="Address or network of a reverse proxy that says where its clients come from; may be given more than once.",
)
@click.option(
    "--proxy-header",
    default=X_FORWARDED_FOR,
    show_default=True,
    type=click.Choice(PROXY_HEADERS, case_sensitive=False),
    help="The header in which it says so; it must overwrite or extend what clients send of it.",
)
@click.option("--allow-legacy-register", is_flag=True, help="Accept registrations that prove no key.")
@click.option("--connections-max", default=20_000, show_default=True, type=click.IntRange(min=1))
@click.option("--connections-per-address", default=256, show_default=True, type=_COUNT, help="0 is no limit.")
@click.option("--registrations-max", default=20_000, show_default=True, type=click.IntRange(min=1))
@click.option("--sessions-max", default=40_000, show_default=True, type=click.IntRange(min=1))
@click.option("--message-bytes-max", default=MIB, show_default=True, type=click.IntRange(1 << 14, 1 << 24))
@click.option(
    "--unsent-bytes-max",
    default=4 * MIB,
    show_default=True,
    type=click.IntRange(min=1 << 16),
    help="Bytes that may wait for one slow reader.",
)
@click.option("--client-messages", default=5_000, show_default=True, type=_COUNT, help="A second; 0 is no limit.")
@click.option("--client-bytes", default=32 * MIB, show_default=True, type=_COUNT, help="A second; 0 is no limit.")
@click.option("--address-messages", default=20_000, show_default=True, type=_COUNT, help="A second; 0 is no limit.")
@click.option("--address-bytes", default=64 * MIB, show_default=True, type=_COUNT, help="A second; 0 is no limit.")
@click.option("--total-messages", default=200_000, show_default=True, type=_COUNT, help="A second; 0 is no limit.")
@click.option("--total-bytes", default=512 * MIB, show_default=True, type=_COUNT, help="A second; 0 is no limit.")
@click.option("--stun/--no-stun", default=True, show_default=True, help="Tell nodes, over UDP, how NATs change them.")
@click.option("--stun-port", type=click.IntRange(1, 65535), help="UDP port for that.  [default: the number of --port]")
@click.option("--stun-address", default="", metavar="ADDRESS", help="IP address for that.  [default: that of --host]")
@click.option(
    "--stun-alternate",
    default="",
    metavar="ADDRESS[:PORT]",
    help="A second address of this machine: nodes can then see what their NATs let in (RFC 5780).",
)
@click.option(
    "--drain-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long sessions may go on after SIGTERM; another signal ends them.",
)
@click.option(
    "--reload-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="How often certificate and tokens are looked at; SIGHUP does it at once.",
)
@click.option("--log-format", default="text", show_default=True, type=click.Choice([f.value for f in logs.LogFormat]))
@click.option("--log-level", default="info", show_default=True, type=click.Choice(logs.LEVELS))
@journal_options
@click.version_option(package_name="teale")
def main(
    log_format: str,
    log_level: str,
    journal: Path | None,
    journal_name: str,
    journal_bytes_max: int,
    **options: object,
) -> None:
    """Run a relay: nodes that cannot see each other meet here, and it cannot read what they say."""
    logs.configure(logs.LogFormat(log_format), log_level)
    keep_freed_memory()
    chosen = RelayOptions(**options)  # type: ignore[arg-type]  # click has checked them
    if chosen.tls_cert is None and chosen.tls_key is not None:
        raise click.UsageError("--tls-key needs --tls-cert")
    try:
        certificate = None if chosen.tls_cert is None else Certificate(chosen.tls_cert, chosen.tls_key)
        tokens = None if chosen.token_file is None else Tokens(chosen.token_file)
    except TealeError as error:
        _fail(str(error))
    access = Access(tokens=tokens, proxies=chosen.trusted_proxies, proxy_header=chosen.proxy_header)
    listener, stun = _listening(chosen, access)
    try:
        recorder = create_journal(journal, host=journal_name, size_max=journal_bytes_max)
    except TealeError as error:
        _fail(str(error))
    _allow_files(chosen.connections_max)
    watched = [each for each in (certificate, tokens) if each is not None]
    try:
        trio.run(serve, listener, stun, access, certificate, watched, chosen, recorder)
    except Exception:
        _log.exception("the relay broke")
        sys.exit(1)
    finally:
        if recorder is not None:
            recorder.close()


async def serve(
    listener: Listener,
    stun: StunSockets | None,
    access: Access,
    certificate: Certificate | None,
    watched: Sequence[Reloadable],
    options: RelayOptions,
    journal: JournalFile | None = None,
) -> None:
    """Serve until a signal says otherwise; raises the error that broke the relay, if one does.

    What is `watched` is read again when it changes. What the relay is fed is recorded in `journal`.
    """
    told, zero = config_of(options), unix_time_at_zero()
    core: Core[RelayInput, RelayEffect]
    core = relay = RelayServer(told, entropy(journal), unix_time_at_zero=zero)
    if journal is not None:
        core = journal.recording(relay, RelayMade(told), unix_time_at_zero=zero)
    runner: Runner[RelayInput, RelayEffect] = Runner(core, get_args(RelayEffect))
    reloader = Reloader(watched, interval_seconds=options.reload_seconds)
    with ExitStack() as receivers:
        signals = receivers.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
        hangups = receivers.enter_context(trio.open_signal_receiver(signal.SIGHUP))
        async with trio.open_nursery() as nursery:
            connections = Connections(feed=runner.feed, nursery=nursery, unsent_bytes_max=options.unsent_bytes_max)
            runner.perform_with(
                {**connections.performers, ReportRefusal: _log_refusal, ReportConnection: _log_connection}
            )
            nursery.start_soon(runner.run)
            nursery.start_soon(reloader.run, hangups)
            if stun is not None:
                nursery.start_soon(stun.run)
            server = WebSocketServer(
                connections,
                page=pages(relay, access, () if stun is None else (StunMetrics(stun.service),)),
                refuse=access.refuse,
                visitor=access.visitor,
                tls=None if certificate is None else certificate.context,
                message_bytes_max=options.message_bytes_max + ENVELOPE_BYTES,
                joins=True,
            )
            async with trio.open_nursery() as listening:
                listening.start_soon(server.serve, listener)
                click.echo(f"listening on {_url(listener.address, is_secure=certificate is not None)}")
                if stun is not None:
                    _log.info("answering STUN", at=" ".join(map(_endpoint, stun.addresses)))
                number = await anext(signals)
                # Ctrl-C is somebody who waits.
                patience = options.drain_seconds if number == signal.SIGTERM else 0
                _log.info("stopping", drain_seconds=patience)
                access.is_stopping = True
                if patience:
                    runner.feed(DrainRequested(round(patience * SECOND)))
                    await _drained(connections, signals)
                listening.cancel_scope.cancel()
            runner.feed(StopRequested())
            with trio.move_on_after(PARTING_SECONDS):
                await connections.wait_empty()
            nursery.cancel_scope.cancel()


async def _drained(connections: Connections, signals: AsyncIterator[int]) -> None:
    """Wait until the core has let go of everybody, or somebody has no patience left."""
    async with trio.open_nursery() as nursery:

        async def on_signal() -> None:
            await anext(signals)
            nursery.cancel_scope.cancel()

        nursery.start_soon(on_signal)
        await connections.wait_empty()
        nursery.cancel_scope.cancel()


def config_of(options: RelayOptions) -> RelayServerConfig:
    """Return what the options ask of the core."""
    size = options.message_bytes_max
    return RelayServerConfig(
        names=options.names,
        allow_legacy_register=options.allow_legacy_register,
        client_traffic=traffic(options.client_messages, options.client_bytes, message_bytes_max=size),
        address_traffic=traffic(options.address_messages, options.address_bytes, message_bytes_max=size),
        total_traffic=traffic(options.total_messages, options.total_bytes, message_bytes_max=size),
        connections_per_address_max=unlimited(options.connections_per_address),
        message_bytes_max=size,
        registrations_max=options.registrations_max,
        sessions_max=options.sessions_max,
    )


def _listening(options: RelayOptions, access: Access) -> tuple[Listener, StunSockets | None]:
    """Return what listens for nodes, and what answers STUN; ends the program where one of them cannot be had."""
    for attempt in range(PORTS_TO_TRY):
        sock = _bound(options)
        try:
            stun = _stun(options, address_of(sock.getsockname()))
        except OSError as error:
            sock.close()
            if options.port == 0 and options.stun_port is None and attempt < PORTS_TO_TRY - 1:
                continue
            port = options.stun_port or options.port
            _fail(
                f"cannot answer STUN on UDP port {port}: {reason_of(error)}; "
                "choose another port with --stun-port, or leave it with --no-stun"
            )
        except ValueError as error:
            _fail(f"--stun-alternate: {error}")
        break
    listener = Listener(
        sock,
        connections_max=options.connections_max,
        # Within the core's limit a connection is told why it is refused; here nobody can be told anything.
        per_address_max=unlimited(options.connections_per_address and options.connections_per_address + HANDSHAKES),
        is_exempt=access.is_proxy,
    )
    return listener, stun


def _bound(options: RelayOptions) -> socket.socket:
    try:
        sock = bind(options.host, options.port)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # accepted sockets inherit it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_IN_KERNEL_BYTES)
    except OSError as error:
        _fail(f"cannot listen on {options.host or '*'}:{options.port}: {reason_of(error)}")
    return sock


def _stun(options: RelayOptions, listening: Address) -> StunSockets | None:
    """Open what answers STUN, by default where the relay listens; raises OSError and ValueError as `open_stun` does."""
    if not options.stun:
        return None
    # A host may be a name, and "" is what `bind` has made of it.
    host = options.stun_address or (listening.host if options.host else "")
    return open_stun(host, options.stun_port or listening.port, alternate=options.stun_alternate)


def _allow_files(count: int) -> None:
    """Raise the limit of open files towards what that many connections need, as far as the system lets us."""
    wanted = count + FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _url(address: Address, *, is_secure: bool) -> str:
    return f"{'wss' if is_secure else 'ws'}://{_endpoint(address)}/ws"


def _endpoint(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _log_refusal(effect: ReportRefusal) -> None:
    # The line at the connection's end says it too.
    _log.debug("refusal", connection=effect.connection, reason=effect.reason)


def _log_connection(effect: ReportConnection) -> None:
    _log.info(
        "connection ended",
        remote=effect.remote,
        node=effect.node,
        open_seconds=round(effect.duration / SECOND, 3),
        messages=effect.messages,
        bytes=effect.size_bytes,
        reason=effect.reason,
    )


def _fail(message: str) -> NoReturn:
    click.echo(f"teale-relay: {message}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
