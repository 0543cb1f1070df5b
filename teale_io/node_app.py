"""`teale-node`: the program around a node core. Everything is put together here, and nothing is decided."""

import os
import random
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final, get_args

import click
import structlog
import trio

from teale_io import logs, program
from teale_io.api.app import create_app
from teale_io.api.server import serve_api
from teale_io.clock import unix_time_at_zero
from teale_io.config import VARIABLES, Config, load_config, with_environment
from teale_io.connections import PARTING_SECONDS, Connections, reason_of
from teale_io.direct import DirectSockets, bind_direct
from teale_io.discovery import Discovery
from teale_io.hardware import has_fast_aes, this_machine
from teale_io.inference.base import Backend
from teale_io.inference.builtin import builtin_backend
from teale_io.inference.llama import LlamaBackend
from teale_io.inference.manager import BackendManager
from teale_io.inference.openai_upstream import OpenAIUpstream
from teale_io.inference.worker_protocol import LlamaParameters
from teale_io.journal import JournalFile, create_journal, entropy, journal_options
from teale_io.kept_discovery import Feed, KeptDiscovery
from teale_io.keychain import load_or_create_identity, passphrase_from
from teale_io.listener import Listener, bind
from teale_io.live_node import LiveNode
from teale_io.mdns import DiscoveryOptions
from teale_io.memory import keep_freed_memory
from teale_io.network import Network, NetworkWatch, OwnAddresses
from teale_io.paths import Paths, Runtime, hold, remove_runtime, write_runtime
from teale_io.port_opening import PortOpener
from teale_io.runner import Runner
from teale_io.stun_servers import parse_server, relay_servers
from teale_io.tcp import dial_tcp, serve_tcp
from teale_io.websocket import WebSocketDialer
from teale_proto.contract import SECOND, Core
from teale_proto.door import Join
from teale_proto.effects import CancelGeneration, DirectTarget, NodeEffect, StartGeneration, WebSocketUrl
from teale_proto.errors import TealeError
from teale_proto.inputs import Address, NetworkChanged, NodeInput, Started, StopRequested
from teale_proto.journal import NodeMade
from teale_proto.node import Node, NodeConfig
from teale_proto.secure.identity import Identity, parse_node_id
from teale_proto.secure.passcode import Passcode

NAME: Final = "teale-node"
LAN_CONNECTIONS_MAX: Final = 512
ENDING_SECONDS: Final = 15.0
"""A process that has begun to end and has not ended by then is ended by force: half a node would be worse than none."""

_log = structlog.get_logger()


@click.command()
@journal_options
@click.version_option(package_name="teale")
def main(journal: Path | None, journal_name: str, journal_bytes_max: int) -> None:
    """Run a node in the foreground; `teale config` sets it up, `teale up` runs it in the background."""
    keep_freed_memory()
    paths = Paths.find()
    try:
        config = with_environment(load_config(paths.config_file), os.environ)
        _configure_logs(config)
        require_joinable(config)
        passphrase = passphrase_from(os.environ)
        # The model's process is our child, and has no business with these.
        for name in ("TEALE_PASSPHRASE", *VARIABLES):
            os.environ.pop(name, None)
        identity = load_or_create_identity(
            paths, config.identity_storage, passphrase=lambda: passphrase, entropy=random.SystemRandom()
        )
        relay_dialer(config)
        if not hold(paths.home / "node.lock"):
            raise TealeError(f"another node is running in {paths.home}; end it with: teale down")
        listener = _bind_lan(config)
        sockets = _bind_direct(config)
        recorder = create_journal(journal, host=journal_name, size_max=journal_bytes_max)
    except TealeError as error:
        program.fail(NAME, str(error))
    program.run(NAME, serve, config, paths, identity, listener, sockets, recorder)


async def serve(
    config: Config,
    paths: Paths,
    identity: Identity,
    listener: Listener | None,
    sockets: Sequence[socket.socket] = (),
    journal: JournalFile | None = None,
) -> None:
    """Run a node until it is told to stop; raises the error that broke it, if one does.

    Without `listener` it has no LAN, without UDP `sockets` no direct paths. What it is fed is recorded in `journal`.
    """
    last_resort = threading.Timer(ENDING_SECONDS, _end_by_force)
    last_resort.daemon = True
    try:
        await _serve(config, paths, identity, listener, sockets, journal, last_resort)
    finally:
        last_resort.cancel()
        if journal is not None:
            journal.close()


async def _serve(
    config: Config,
    paths: Paths,
    identity: Identity,
    listener: Listener | None,
    sockets: Sequence[socket.socket],
    journal: JournalFile | None,
    last_resort: threading.Timer,
) -> None:
    told, zero = node_config(config), unix_time_at_zero()
    core: Core[NodeInput, NodeEffect]
    core = node = Node(told, identity, entropy(journal), unix_time_at_zero=zero)
    if journal is not None:
        core = journal.recording(node, NodeMade(told, identity), unix_time_at_zero=zero)
    runner: Runner[NodeInput, NodeEffect] = Runner(core, get_args(NodeEffect))
    manager = BackendManager(backends_of(config), runner.feed)
    live = LiveNode(
        node,
        feed=runner.feed,
        request_timeout_seconds=config.request_timeout_seconds,
        problems=lambda: manager.problems,
    )
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_call_at_end, last_resort.start)
            direct = DirectSockets(runner.feed, identity, sockets)
            ports = PortOpener(runner.feed)
            connections = Connections(
                feed=runner.feed,
                nursery=nursery,
                dialers={Address: dial_tcp, WebSocketUrl: relay_dialer(config), DirectTarget: direct.dial},
            )
            discovery = KeptDiscovery(feed=runner.feed, discover=partial(_discovery, config, identity))
            runner.perform_with(
                {
                    **connections.performers,
                    **direct.performers,
                    **ports.performers,
                    **live.performers,
                    StartGeneration: manager.start,
                    CancelGeneration: manager.cancel,
                    **discovery.performers,
                }
            )
            nursery.start_soon(runner.run)
            await nursery.start(direct.run, connections)
            await nursery.start(ports.run)
            await nursery.start(manager.run)
            app = create_app(live, version=version("teale"), allowed_hosts=_api_names(config))
            draining, drained = trio.Event(), trio.Event()

            async def serve_app(task_status: trio.TaskStatus[int]) -> None:
                await serve_api(app, config.api_host, config.api_port, draining=draining, task_status=task_status)
                drained.set()

            api_port: int = await nursery.start(serve_app)
            if listener is not None:
                nursery.start_soon(serve_tcp, connections, listener)
                nursery.start_soon(discovery.run)
            runner.feed(Started(listener.address.port if listener is not None else None))
            if config.wan_enabled:
                nursery.start_soon(_network_watch(config, direct, connections, runner.feed).run)
            write_runtime(paths, Runtime(os.getpid(), config.api_host, api_port, identity.node_id))
            _log.info("node is up", node_id=identity.node_id, api_host=config.api_host, api_port=api_port)
            try:
                await _stop_wanted(live, signals)
            finally:
                remove_runtime(paths)
            _log.info("stopping")
            runner.feed(StopRequested())
            live.close()
            draining.set()
            with trio.move_on_after(PARTING_SECONDS):
                # Whoever waits for an answer is told that none will come.
                await drained.wait()
                await connections.wait_empty()
                await ports.wait_idle()
            nursery.cancel_scope.cancel()
    _log.info("stopped")


async def _stop_wanted(live: LiveNode, signals: AsyncIterator[int]) -> None:
    async with trio.open_nursery() as nursery:

        async def on_signal() -> None:
            await anext(signals)
            live.stop()

        nursery.start_soon(on_signal)
        await live.wait_stopped()
        nursery.cancel_scope.cancel()


async def _call_at_end(call: Callable[[], object]) -> None:
    try:
        await trio.sleep_forever()
    finally:
        call()


def _end_by_force() -> None:
    _log.error("the node does not end by itself, and is ended", after_seconds=ENDING_SECONDS)
    os._exit(1)


def node_config(config: Config) -> NodeConfig:
    """Return what the core is told of the configuration."""
    return NodeConfig(
        display_name=config.display_name,
        hardware=this_machine(),
        heartbeat=config.heartbeat_seconds * SECOND,
        lan_enabled=config.lan_enabled,
        lan_encrypted=config.lan_encryption == "noise",
        fast_aes=has_fast_aes(),
        lan_join=None if config.lan_join == "auto" else Join(config.lan_join),
        lan_passcode=Passcode(config.lan_passcode) if config.lan_passcode else None,
        wan_join=Join(config.wan_join),
        trusted_nodes=tuple(map(parse_node_id, config.trusted_nodes)),
        allow_plaintext_legacy=config.allow_plaintext_legacy,
        wan_enabled=config.wan_enabled,
        wan_relay_url=config.wan_relay_url,
        wan_peers_max=config.wan_peers_max,
        wan_direct=config.wan_direct,
        wan_birthday=config.wan_birthday,
        max_concurrent_requests=config.max_concurrent_requests,
        queue_max=config.queue_max,
    )


def require_joinable(config: Config) -> None:
    """Raise TealeError where nobody could join on the LAN, since the passcode that is asked for is not set."""
    if config.lan_enabled and config.lan_join == "passcode" and not config.lan_passcode:
        raise TealeError(
            "lan_join is passcode, but no passcode is set. Set one with: teale config set lan_passcode, "
            "or in the environment variable TEALE_LAN_PASSCODE"
        )


def _bind_lan(config: Config) -> Listener | None:
    if not config.lan_enabled:
        return None
    try:
        return Listener(bind(config.lan_host, config.lan_port), connections_max=LAN_CONNECTIONS_MAX)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TealeError(
            f"cannot listen on port {config.lan_port} for the LAN: {reason}. "
            "Choose another with: teale config set lan_port PORT"
        ) from None


def _bind_direct(config: Config) -> tuple[socket.socket, ...]:
    if not (config.wan_enabled and config.wan_direct):
        return ()
    try:
        return bind_direct(config.wan_udp_port)
    except OSError as error:
        raise TealeError(
            f"cannot use UDP port {config.wan_udp_port} for direct paths: {reason_of(error)}. Choose another with: "
            "teale config set wan_udp_port PORT, or do without with: teale config set wan_direct false"
        ) from None


def _network_watch(
    config: Config, direct: DirectSockets, connections: Connections, feed: Callable[[NodeInput], None]
) -> NetworkWatch:
    """Return what tells the sockets, the connections and the core of every network."""
    addresses = OwnAddresses()

    def tell(network: Network) -> None:
        connections.break_from(addresses.gone())
        if direct.ports:
            feed(NetworkChanged(direct.moved(network.hosts), network.stun, network.gateway))

    servers = tuple(map(parse_server, config.wan_stun)) or relay_servers(config.wan_relay_url)
    return NetworkWatch(servers if direct.ports else (), tell)


def _discovery(config: Config, identity: Identity, feed: Feed) -> Discovery:
    return Discovery(feed=feed, own=identity.node_id, options=DiscoveryOptions(interfaces=config.lan_interfaces))


def relay_dialer(config: Config) -> WebSocketDialer:
    """Return what opens connections to the relay; raises TealeError where `wan_relay_ca` cannot be used."""
    token = config.wan_relay_token
    if not (config.wan_enabled and config.wan_relay_ca):
        return WebSocketDialer(token=token)
    try:
        ssl.create_default_context(cafile=config.wan_relay_ca)
    except ssl.SSLError:
        reason = "there is no certificate in it"
    except OSError as error:
        reason = reason_of(error)
    else:
        return WebSocketDialer(ca_file=Path(config.wan_relay_ca), token=token)
    raise TealeError(
        f"wan_relay_ca, {config.wan_relay_ca}, cannot be used: {reason}. It must be a PEM file with the certificate "
        "of the authority that signed the relay's, or of the relay itself."
    )


def backends_of(config: Config) -> list[Backend]:
    """Return the backends that the configuration asks for, none of them running yet."""
    silence = float(config.backend_silence_seconds)
    backends: list[Backend] = [LlamaBackend(LlamaParameters(path=path), silence=silence) for path in config.gguf_models]
    backends += [
        OpenAIUpstream(url, api_key_env=config.openai_api_key_env, silence=silence) for url in config.openai_urls
    ]
    if config.builtin_model:
        backends.append(builtin_backend(silence=silence))
    return backends


def _api_names(config: Config) -> tuple[str, ...]:
    return (config.api_host,) if config.api_allow_remote else ()


def _configure_logs(config: Config) -> None:
    text = sys.stderr.isatty() if config.log_format == "auto" else config.log_format == "text"
    logs.configure(logs.LogFormat.TEXT if text else logs.LogFormat.JSON, config.log_level)


if __name__ == "__main__":
    main()
