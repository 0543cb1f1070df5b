"""`teale doctor`: looks at everything that a node needs, and says what to do about what it finds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec
import structlog

from teale_io.cli import checkup, checkup_models, checkup_relay
from teale_io.cli.app import App, json_option, pass_app
from teale_io.cli.checkup import Finding, Level
from teale_io.cli.client import NodeApi, decoded
from teale_io.cli.exits import CliError, Exit
from teale_io.cli.process import FoundNode, find_node
from teale_io.cli.views import NodeView
from teale_io.config import load_config, with_environment
from teale_io.node_app import require_joinable
from teale_proto.errors import TealeError

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command()
@click.option("--skip-models", is_flag=True, help="Leave the models alone; to load a large one takes a while.")
@json_option
@pass_app
def doctor(app: App, skip_models: bool) -> int:
    """Check configuration, key, ports, network, relay, clock, models, disk; say what to do about what is wrong.

    A running node is asked; otherwise things are tried out, and nothing is changed by it. Each finding is ok, warn or
    fail. The exit code is 1 if there is any fail, else 0.
    """
    findings = []
    with app.out.waiting("Looking around"), _without_log():
        for finding in _findings(app, skip_models=skip_models):
            findings.append(finding)
            if not app.out.as_json:
                _show(app, finding)
    worst = max((each.status for each in findings), key=list(Level).index)
    if app.out.as_json:
        app.out.document({"status": worst.value, "findings": msgspec.to_builtins(findings)})
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


def _findings(app: App, *, skip_models: bool) -> Iterator[Finding]:
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
