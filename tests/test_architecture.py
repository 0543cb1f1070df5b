"""What the architecture promises, checked: who imports whom, and that every table covers its union."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from teale_proto import effects, inputs
from teale_proto.node import Node
from teale_proto.peer_news import News
from teale_proto.relay.news import RelayNews
from teale_proto.timers import Timers

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "teale_proto").rglob("*.py"))


def test_the_packages_import_only_what_they_may() -> None:
    # In a process of its own, since it switches off the loggers of the one that it is in.
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("table", "union"),
    [(Node._ON, inputs.NodeInput), (Node._ON_NEWS, News), (Node._ON_RELAY_NEWS, RelayNews)],
)
def test_every_table_of_the_node_covers_its_union(table: dict[type[Any], object], union: Any) -> None:
    assert table.keys() == set(get_args(union))


def test_every_timer_that_is_set_has_a_handler() -> None:
    due = {
        node.name
        for path in CORE
        # The relay server is a core of its own, with its own timers.
        if path.parent.name != "relay" or path.name.startswith("client")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Due", "Timer"))
    }
    # `Due` is what Liveness returns, not a key.
    assert due - {"Due"} == {key.__name__ for key in Node._ON_TIMER}


@pytest.mark.parametrize("module", [inputs, effects])
def test_every_input_and_effect_is_in_a_union(module: Any) -> None:
    of_nodes = {*get_args(inputs.NodeInput), *get_args(effects.NodeEffect)}
    unions = {*of_nodes, *get_args(inputs.RelayInput), *get_args(effects.RelayEffect)}
    parts = {"Address", "DirectTarget", "PeerHandle", "ServiceRecord", "WebSocketUrl"}
    declared = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "__struct_fields__")
    }
    assert declared - parts == {kind.__name__ for kind in unions if kind.__module__ == module.__name__}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_of_the_core_opens_with_its_idea_and_stays_small(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(path.read_text().splitlines()) <= 620


def test_the_core_iterates_no_sets() -> None:
    """Their order depends on the hash seed, and with it everything that follows."""
    offenders = [
        f"{path.name}:{node.iter.lineno}"
        for path in CORE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.For | ast.comprehension)
        and isinstance(node.iter, ast.Set | ast.SetComp)
        | (isinstance(node.iter, ast.Call) and getattr(node.iter.func, "id", "") in {"set", "frozenset"})
    ]
    assert not offenders


def test_timers_compare_deadlines_and_never_keys() -> None:
    timers: Timers[Any] = Timers()
    timers.set("text", 5)
    timers.set(7, 5)
    timers.set(None, 5)
    assert [timers.pop_due(5), timers.pop_due(5), timers.pop_due(5)] == ["text", 7, None]


def test_the_command_line_starts_without_the_node_that_only_its_doctor_tries_out() -> None:
    code = (
        "import sys, teale_io.cli.main; print('teale_proto.node' in sys.modules, 'teale_io.cli.doctor' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
