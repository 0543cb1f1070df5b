"""`teale config get`, `set` and `list`, and `teale id`."""

from pathlib import Path

import click

from teale_io.cli.app import App, json_option, pass_app
from teale_io.cli.exits import CliError, Exit
from teale_io.cli.process import is_alive
from teale_io.config import KEYS, SECRETS, ConfigValue, key_named, keys_set_in, load_config, set_value
from teale_io.keychain import read_marker
from teale_io.paths import read_runtime
from teale_proto.secure.identity import to_multibase

_FILES = frozenset({"gguf_models", "wan_relay_ca"})


@click.group()
def config() -> None:
    """Read and change the configuration file."""


def _complete_key(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in KEYS if name.startswith(incomplete)]


@config.command("get")
@click.argument("key", shell_complete=_complete_key)
@json_option
@pass_app
def get_command(app: App, key: str) -> None:
    """Print the value of KEY."""
    name = key_named(key).name
    value: ConfigValue = getattr(load_config(app.paths.config_file), name)
    if app.out.as_json:
        app.out.document({"key": name, "value": value})
    else:
        app.out.line(written(value))


@config.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("key", shell_complete=_complete_key)
@click.argument("value", nargs=-1, type=click.UNPROCESSED)
@json_option
@pass_app
def set_command(app: App, key: str, value: tuple[str, ...]) -> None:
    """Set KEY to VALUE; a list takes several values, or [] for none. A secret without VALUE is asked for, unseen."""
    if not value and key in SECRETS:
        value = (click.prompt(key, hide_input=True, default="", show_default=False),)
    words = [_absolute(word) for word in value] if key in _FILES else list(value)
    understood = set_value(app.paths.config_file, key, words)
    runtime = read_runtime(app.paths)
    must_restart = runtime is not None and is_alive(runtime.pid)
    if app.out.as_json:
        app.out.document({"key": key, "value": presentable(key, understood), "restart_needed": must_restart})
        return
    app.out.line(f"{key} = {written(presentable(key, understood))}")
    if must_restart:
        app.out.note(
            "The running node goes on with its former settings. To take this up: teale down, teale up", "yellow"
        )


@config.command("list")
@json_option
@pass_app
def list_command(app: App) -> None:
    """List all keys with their values and what they mean."""
    file = app.paths.config_file
    values = load_config(file)
    changed = keys_set_in(file)
    if app.out.as_json:
        keys = [
            {
                "key": key.name,
                "value": presentable(key.name, getattr(values, key.name)),
                "default": key.default,
                "is_set": key.name in changed,
                "expected": key.expected,
                "help": key.help,
            }
            for key in KEYS.values()
        ]
        app.out.document({"file": str(file), "keys": keys})
        return
    app.out.note(str(file))
    rows = [(name, written(presentable(name, getattr(values, name))), key.help) for name, key in KEYS.items()]
    app.out.table(("KEY", "VALUE", "MEANING"), rows, emphasis=[name in changed for name in KEYS])


@click.command("id")
@click.option("--multibase", is_flag=True, help="In the form of did:key, z6Mk...")
@click.option("--create", is_flag=True, help="Make an identity if there is none yet.")
@json_option
@pass_app
def show_id(app: App, multibase: bool, create: bool) -> None:
    """Print the node id, by which the network knows this node."""
    marker = read_marker(app.paths)
    if marker is None and create:
        app.identity()
        marker = read_marker(app.paths)
    if marker is None:
        raise CliError(
            Exit.NOT_FOUND, "This node has no identity yet. It gets one with: teale up (or: teale id --create)"
        )
    in_multibase = to_multibase(marker.node_id)
    if app.out.as_json:
        app.out.document({"node_id": marker.node_id, "multibase": in_multibase, "storage": marker.storage})
    else:
        app.out.line(in_multibase if multibase else marker.node_id)


def presentable(name: str, value: ConfigValue) -> ConfigValue:
    """Return a value as others may see it: of a secret, only that it is set. `teale config get` shows it."""
    return "(set)" if name in SECRETS and value else value


def written(value: ConfigValue) -> str:
    """Return a value as `teale config set` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    return str(value)


def _quoted(text: str) -> str:
    """Return `text`, which is printable, as a TOML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _absolute(word: str) -> str:
    """Return a path that a person wrote, made absolute from where they are; arrays in TOML stay as they are."""
    return word if not word or word.lstrip().startswith(("[", "~")) else str(Path.cwd() / word)
