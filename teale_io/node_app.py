"""`teale-node`: the program around a node core. Everything is put together here, and nothing is decided."""

import os
import random
import signal
import sys
from collections.abc import AsyncIterator
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
from teale_io.config import Config, load_config
from teale_io.connections import PARTING_SECONDS, Connections
from teale_io.discovery import Discovery
from teale_io.hardware import this_machine
from teale_io.inference.base import Backend
from teale_io.inference.builtin import builtin_backend
from teale_io.inference.llama import LlamaBackend
from teale_io.inference.manager import BackendManager
from teale_io.inference.openai_upstream import OpenAIUpstream
from teale_io.inference.worker_protocol import LlamaParameters
from teale_io.keychain import load_or_create_identity, passphrase_from
from teale_io.listener import Listener, bind
from teale_io.live_node import LiveNode
from teale_io.mdns import DiscoveryOptions
from teale_io.paths import Paths, Runtime, remove_runtime, write_runtime
from teale_io.runner import Runner
from teale_io.tcp import dial_tcp, serve_tcp
from teale_io.websocket import WebSocketDialer
from teale_proto.contract import SECOND
from teale_proto.effects import Advertise, CancelGeneration, NodeEffect, StartGeneration, WebSocketUrl
from teale_proto.errors import TealeError
from teale_proto.inputs import Address, NodeInput, Started, StopRequested
from teale_proto.node import Node, NodeConfig
from teale_proto.secure.identity import Identity

NAME: Final = "teale-node"
LAN_CONNECTIONS_MAX: Final = 512

_log = structlog.get_logger()


@click.command()
@click.version_option(package_name="teale")
def main() -> None:
    """Run a node in the foreground; `teale config` sets it up, `teale up` runs it in the background."""
    paths = Paths.find()
    try:
        config = load_config(paths.config_file)
        _configure_logs(config)
        passphrase = passphrase_from(os.environ)
        # The model's process is our child, and has no business with it.
        os.environ.pop("TEALE_PASSPHRASE", None)
        identity = load_or_create_identity(
            paths, config.identity_storage, passphrase=lambda: passphrase, entropy=random.SystemRandom()
        )
        listener = _bind_lan(config)
    except TealeError as error:
        program.fail(NAME, str(error))
    program.run(NAME, serve, config, paths, identity, listener)


async def serve(config: Config, paths: Paths, identity: Identity, listener: Listener | None) -> None:
    """Run a node until it is told to stop; raises the error that broke it, if one does."""
    node = Node(_node_config(config), identity, random.SystemRandom(), unix_time_at_zero=unix_time_at_zero())
    runner: Runner[NodeInput, NodeEffect] = Runner(node, get_args(NodeEffect))
    live = LiveNode(node, feed=runner.feed, request_timeout_seconds=config.request_timeout_seconds)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            connections = Connections(
                feed=runner.feed,
                nursery=nursery,
                dialers={Address: dial_tcp, WebSocketUrl: WebSocketDialer()},
            )
            manager = BackendManager(_backends(config, paths), runner.feed)
            discovery = Discovery(
                feed=runner.feed,
                own=identity.node_id,
                options=DiscoveryOptions(interfaces=config.lan_interfaces),
            )
            runner.perform_with(
                {
                    **connections.performers,
                    **live.performers,
                    StartGeneration: manager.start,
                    CancelGeneration: manager.cancel,
                    Advertise: discovery.performers[Advertise],
                }
            )
            nursery.start_soon(runner.run)
            await nursery.start(manager.run)
            app = create_app(live, version=version("teale"), allowed_hosts=_api_names(config))
            api_port: int = await nursery.start(serve_api, app, config.api_host, config.api_port)
            if listener is not None:
                nursery.start_soon(serve_tcp, connections, listener)
                nursery.start_soon(discovery.run)
            runner.feed(Started(listener.address.port if listener is not None else None))
            write_runtime(paths, Runtime(os.getpid(), config.api_host, api_port, identity.node_id))
            _log.info("node is up", node_id=identity.node_id, api_host=config.api_host, api_port=api_port)
            try:
                await _stop_wanted(live, signals)
            finally:
                remove_runtime(paths)
            _log.info("stopping")
            runner.feed(StopRequested())
            with trio.move_on_after(PARTING_SECONDS):
                await connections.wait_empty()
            nursery.cancel_scope.cancel()


async def _stop_wanted(live: LiveNode, signals: AsyncIterator[int]) -> None:
    async with trio.open_nursery() as nursery:

        async def on_signal() -> None:
            await anext(signals)
            live.stop()

        nursery.start_soon(on_signal)
        await live.wait_stopped()
        nursery.cancel_scope.cancel()


def _node_config(config: Config) -> NodeConfig:
    return NodeConfig(
        display_name=config.display_name,
        hardware=this_machine(),
        heartbeat=config.heartbeat_seconds * SECOND,
        lan_enabled=config.lan_enabled,
        lan_encrypted=config.lan_encryption == "noise",
        wan_enabled=config.wan_enabled,
        wan_relay_url=config.wan_relay_url,
        max_concurrent_requests=config.max_concurrent_requests,
        queue_max=config.queue_max,
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


def _backends(config: Config, paths: Paths) -> list[Backend]:
    folder = paths.config_file.parent
    backends: list[Backend] = [LlamaBackend(LlamaParameters(path=str(folder / Path(p)))) for p in config.gguf_models]
    backends += [OpenAIUpstream(url, api_key_env=config.openai_api_key_env) for url in config.openai_urls]
    if config.builtin_model:
        backends.append(builtin_backend())
    return backends


def _api_names(config: Config) -> tuple[str, ...]:
    return (config.api_host,) if config.api_allow_remote else ()


def _configure_logs(config: Config) -> None:
    text = sys.stderr.isatty() if config.log_format == "auto" else config.log_format == "text"
    logs.configure(logs.LogFormat.TEXT if text else logs.LogFormat.JSON, config.log_level)


if __name__ == "__main__":
    main()
