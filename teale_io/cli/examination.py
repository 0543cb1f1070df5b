"""What `teale doctor` looks at, in its order, and what it does about it: it tells, and mends nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from teale_io.cli import checkup, checkup_models, checkup_network, checkup_relay, checkup_ways
from teale_io.cli.app import App
from teale_io.cli.checkup import Finding, Level
from teale_io.cli.checkup_ways import Tell
from teale_io.cli.client import NodeApi, decoded
from teale_io.cli.exits import CliError, Exit
from teale_io.cli.process import FoundNode, find_node
from teale_io.cli.views import NodeView
from teale_io.config import Config, load_config, with_environment
from teale_io.netcheck import Netcheck
from teale_io.node_app import require_joinable
from teale_io.stun_servers import Server
from teale_proto.errors import TealeError

_STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def examine(app: App, /, *, skip_models: bool, netcheck: bool, save: Path | None, **more: Any) -> int:
    """Look, tell each finding as it comes, and return the exit code; `more` says what is wanted of a netcheck."""
    findings = []
    wanted = _Netcheck(tell=app.out.note, save=save, **more) if netcheck or save or any(more.values()) else None
    with app.out.waiting("Looking around"), _without_log():
        for finding in _findings(app, skip_models=skip_models, netcheck=wanted):
            findings.append(finding)
            if not app.out.as_json:
                _show(app, finding)
    worst = max((each.status for each in findings), key=list(Level).index)
    if app.out.as_json:
        document: dict[str, Any] = {"status": worst.value, "findings": msgspec.to_builtins(findings)}
        if wanted is not None and wanted.result is not None:
            document["netcheck"] = checkup_network.as_builtins(wanted.result)
        app.out.document(document)
    else:
        counted = [sum(each.status is level for each in findings) for level in Level]
        app.out.note("{} ok, {} to look at, {} to mend".format(*counted))
    return Exit.ERROR if worst is Level.FAIL else Exit.OK


@contextmanager
def _without_log() -> Iterator[None]:
    """Keep the parts that are tried out from logging: what they have to say is in the findings."""
    former = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**former)


class _Netcheck:
    """What is wanted of a netcheck, and what came of it once it is over."""

    def __init__(
        self,
        *,
        servers: tuple[Server, ...],
        port_mapping: bool,
        lifetime: bool,
        portal_url: str | None,
        save: Path | None,
        tell: Tell,
    ) -> None:
        self._servers = servers
        self._map_port = port_mapping
        self._lifetime = lifetime
        self._portal_url = portal_url
        self._save = save
        self._tell = tell
        self.result: Netcheck | None = None

    def findings(self, config: Config) -> Iterator[Finding]:
        """Do it."""
        try:
            relays = checkup_ways.targets_of(config)
        except TealeError:
            relays = ()  # which is another check's business
        page = checkup_ways.page_of(config, self._portal_url)
        self.result = checkup_network.look(config, self._servers, map_port=self._map_port, relays=relays, page=page)
        if self._lifetime:
            self.result = checkup_ways.search_lifetimes(self.result, self._tell)
        asked = bool(checkup_network.servers_of(config, self._servers))
        yield from checkup_network.findings(self.result, map_port=self._map_port, asked=asked)
        if self._save is not None:
            yield checkup_network.save(self.result, self._save)


def _findings(app: App, *, skip_models: bool, netcheck: _Netcheck | None) -> Iterator[Finding]:
    node = find_node(app.paths)
    yield checkup.ok("node", f"runs as process {node.runtime.pid}" if node else "does not run: things are tried out")
    yield checkup.disk(app.paths)
    yield checkup.open_files()
    try:
        config = with_environment(load_config(app.paths.config_file), app.environ)
        require_joinable(config)
    except TealeError as error:
        yield checkup.fail("configuration", str(error), "Mend that first; nothing else can be looked at before.")
        return
    yield checkup.configuration(app.paths, node)
    yield checkup.identity(app.paths, config, app.environ, node)
    yield checkup.api(config, node)
    yield checkup.lan_port(config, node)
    yield checkup.lan_interfaces(config)
    status = _status_of(node)
    yield from checkup_relay.relay(config, status)
    if netcheck is not None:
        yield from netcheck.findings(config)
    if skip_models:
        return
    none = checkup_models.no_models(config)
    if none is not None:
        yield none
    elif node is None:
        yield from checkup_models.by_itself(config)
    elif status is not None:
        yield from checkup_models.in_the_node(status, node.runtime.api_url)


def _status_of(node: FoundNode | None) -> NodeView | None:
    """Return what the running node says of itself; that it says nothing is a finding of its own."""
    if node is None or not node.is_answering:
        return None
    try:
        with NodeApi(node.runtime.api_url) as api:
            return decoded(api.get("/api/status"), NodeView)
    except CliError:
        return None


def _show(app: App, finding: Finding) -> None:
    app.out.line(f"{finding.status.value:<4}  {finding.check}: {finding.found}", _STYLES[finding.status])
    if finding.status is not Level.OK:
        app.out.line(f"      {finding.advice}")
