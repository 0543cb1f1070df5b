"""`teale up` and `teale down`."""

import os

import click

from teale_io.cli.app import App, json_option, pass_app
from teale_io.cli.client import NodeApi
from teale_io.cli.exits import CliError, Exit
from teale_io.cli.process import (
    FoundNode,
    NodeProcess,
    ask_to_terminate,
    find_node,
    run_in_foreground,
    wait_until_gone,
)
from teale_io.paths import Runtime, locked, remove_runtime

LOG_LINES_SHOWN = 12


@click.command()
@click.option("--foreground", is_flag=True, help="Stay on this terminal; Ctrl-C stops the node.")
@click.option("--wait", "wait_seconds", default=60.0, show_default=True, help="Seconds to wait until it is up.")
@json_option
@pass_app
def up(app: App, foreground: bool, wait_seconds: float) -> None:
    """Start the node in the background, and wait until it answers."""
    with locked(app.paths.runtime_file):  # a second `up` waits, and then finds the node of the first
        found = find_node(app.paths)
        if found is not None:
            _tell_up(app, found.runtime, is_new=False)
            return
        node_id = app.identity().node_id  # asks and complains here rather than in the log of the node
        if not foreground:
            _tell_up(app, _start(app, wait_seconds), is_new=True)
            return
    app.out.note(f"node id: {node_id}")
    status = run_in_foreground(app.node_command, app.node_environ())
    if status:
        raise CliError(Exit.ERROR, f"The node ended with status {status}; its last words are above.")


def _start(app: App, wait_seconds: float) -> Runtime:
    with app.out.waiting("Starting the node"):
        process = NodeProcess(app.paths, app.node_command, app.node_environ())
        runtime = process.wait_until_up(wait_seconds)
    if runtime is not None:
        return runtime
    log = "\n".join("  " + line for line in process.last_log_lines(LOG_LINES_SHOWN)) or "  (it said nothing)"
    status = process.exit_status()
    if status is None:
        raise CliError(
            Exit.TIMEOUT,
            f"The node (process {process.pid}) has not come up within {wait_seconds:g} seconds; it goes on trying. "
            f"Its last words, from {app.paths.log_file}:\n{log}",
        )
    how = f"signal {-status}" if status < 0 else f"status {status}"
    raise CliError(
        Exit.ERROR, f"The node did not start: it ended with {how}. Its last words, from {app.paths.log_file}:\n{log}"
    )


def _tell_up(app: App, runtime: Runtime, *, is_new: bool) -> None:
    document = {
        "started": is_new,
        "node_id": runtime.node_id,
        "api_url": runtime.api_url,
        "pid": runtime.pid,
        "log_file": str(app.paths.log_file),
    }
    if app.out.as_json:
        app.out.document(document)
        return
    app.out.line("The node is up." if is_new else f"The node is already running (process {runtime.pid}).", "bold green")
    app.out.field("node id", runtime.node_id)
    app.out.field("api", runtime.api_url)
    app.out.note(f"For OpenAI clients: OPENAI_BASE_URL={runtime.api_url}/v1")
    app.out.note("Next: teale status, teale models, teale chat. To stop it: teale down")


@click.command()
@click.option("--wait", "wait_seconds", default=30.0, show_default=True, help="Seconds to wait until it has ended.")
@json_option
@pass_app
def down(app: App, wait_seconds: float) -> None:
    """Stop the node, letting it say good-bye to its peers."""
    found = find_node(app.paths)
    if found is None:
        _tell_down(app, stopped=False)
        return
    pid = found.runtime.pid
    _ask_to_stop(app, found)
    with app.out.waiting("Stopping the node"):
        gone = wait_until_gone(pid, wait_seconds)
    if not gone:
        order = f"taskkill /F /PID {pid}" if os.name == "nt" else f"kill -9 {pid}"
        raise CliError(
            Exit.TIMEOUT, f"The node (process {pid}) has not ended within {wait_seconds:g} seconds. To end it: {order}"
        )
    remove_runtime(app.paths)
    _tell_down(app, stopped=True)


def _ask_to_stop(app: App, found: FoundNode) -> None:
    """Ask through the API; a node that does not listen there gets the signal."""
    if found.is_answering:
        try:
            with NodeApi(found.runtime.api_url) as api:
                api.post("/api/shutdown")
        except CliError as error:
            app.out.note(str(error))
        else:
            return
    ask_to_terminate(app.paths, found.runtime.pid)


def _tell_down(app: App, *, stopped: bool) -> None:
    if app.out.as_json:
        app.out.document({"stopped": stopped})
    else:
        app.out.line("The node has stopped." if stopped else "No node is running here.")
