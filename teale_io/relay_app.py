"""`teale-relay`: the program around a relay core."""

import random
import resource
import signal
import ssl
import sys
from pathlib import Path
from typing import Final, NoReturn, get_args

import click
import structlog
import trio

from teale_io import logs
from teale_io.clock import unix_time_at_zero
from teale_io.connections import MIB, PARTING_SECONDS, Connections, reason_of
from teale_io.listener import Listener, bind
from teale_io.relay_http import pages
from teale_io.runner import Runner
from teale_io.websocket_server import WebSocketServer
from teale_proto.contract import Value
from teale_proto.effects import RelayEffect, ReportRefusal
from teale_proto.inputs import Address, RelayInput, StopRequested
from teale_proto.relay.server import RelayServer, RelayServerConfig

FILES_BESIDE_CONNECTIONS: Final = 100

_log = structlog.get_logger()


class RelayOptions(Value):
    """How the program is run; `names` are the host names under which nodes reach it."""

    host: str = "127.0.0.1"
    port: int = 11437
    names: tuple[str, ...] = ()
    allow_legacy_register: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    connections_max: int = 20_000
    unsent_bytes_max: int = 4 * MIB


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help='Address to listen on; "" is all of them.')
@click.option("--port", default=11437, show_default=True, type=click.IntRange(0, 65535), help="0 is any free port.")
@click.option("--name", "names", multiple=True, help="Public host name of this relay; may be given more than once.")
@click.option("--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="Certificate chain (PEM): serve wss.")
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="Its key, unless it is in the chain.")
@click.option("--allow-legacy-register", is_flag=True, help="Accept registrations that prove no key.")
@click.option("--connections-max", default=20_000, show_default=True, type=click.IntRange(min=1))
@click.option("--log-format", default="text", show_default=True, type=click.Choice([f.value for f in logs.LogFormat]))
@click.option("--log-level", default="info", show_default=True, type=click.Choice(logs.LEVELS))
@click.version_option(package_name="teale")
def main(log_format: str, log_level: str, **options: object) -> None:
    """Run a relay: nodes that cannot see each other meet here, and it cannot read what they say."""
    logs.configure(logs.LogFormat(log_format), log_level)
    chosen = RelayOptions(**options)  # type: ignore[arg-type]  # click has checked them
    tls = _tls_context(chosen)
    listener = _listener(chosen)
    _allow_files(chosen.connections_max)
    try:
        trio.run(serve, listener, tls, chosen)
    except Exception:
        _log.exception("the relay broke")
        sys.exit(1)


async def serve(listener: Listener, tls: ssl.SSLContext | None, options: RelayOptions) -> None:
    """Serve until a signal says otherwise; raises the error that broke the relay, if one does."""
    config = RelayServerConfig(names=options.names, allow_legacy_register=options.allow_legacy_register)
    relay = RelayServer(config, random.SystemRandom(), unix_time_at_zero=unix_time_at_zero())
    runner: Runner[RelayInput, RelayEffect] = Runner(relay, get_args(RelayEffect))
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            connections = Connections(feed=runner.feed, nursery=nursery, unsent_bytes_max=options.unsent_bytes_max)
            runner.perform_with({**connections.performers, ReportRefusal: _log_refusal})
            nursery.start_soon(runner.run)
            server = WebSocketServer(connections, page=pages(relay), tls=tls)
            async with trio.open_nursery() as listening:
                listening.start_soon(server.serve, listener)
                click.echo(f"listening on {_url(listener.address, tls)}")
                await anext(signals)
                listening.cancel_scope.cancel()
            _log.info("stopping")
            runner.feed(StopRequested())
            with trio.move_on_after(PARTING_SECONDS):
                await connections.wait_empty()
            nursery.cancel_scope.cancel()


def _tls_context(options: RelayOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        if options.tls_key is not None:
            raise click.UsageError("--tls-key needs --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An encrypted key must not make a service wait for somebody to type.
        context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: "")
    except ssl.SSLError as error:
        _fail(f"the certificate or its key cannot be used: {error.reason or error}")
    except OSError as error:
        _fail(f"the certificate or its key cannot be read: {reason_of(error)}")
    return context


def _listener(options: RelayOptions) -> Listener:
    try:
        return Listener(bind(options.host, options.port), connections_max=options.connections_max)
    except OSError as error:
        _fail(f"cannot listen on {options.host or '*'}:{options.port}: {reason_of(error)}")


def _allow_files(count: int) -> None:
    """Raise the limit of open files towards what that many connections need, as far as the system lets us."""
    wanted = count + FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _url(address: Address, tls: ssl.SSLContext | None) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'ws' if tls is None else 'wss'}://{host}:{address.port}/ws"


def _log_refusal(effect: ReportRefusal) -> None:
    _log.info("connection refused", connection=effect.connection, reason=effect.reason)


def _fail(message: str) -> NoReturn:
    click.echo(f"teale-relay: {message}", err=True)
    sys.exit(1)
