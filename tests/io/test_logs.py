"""What reaches the log, and what must not."""

import json
import logging
import subprocess
import sys

import pytest

from teale_io import logs
from teale_io.logs import TEXT_CHARACTERS_MAX, duration, for_people, hide

SCRIPT = """
import logging, sys, structlog
from teale_io import logs
logs.configure(logs.LogFormat(sys.argv[1]), "info")
log = structlog.get_logger()
log.debug("not shown")
log.info("ready", port=7, passphrase="hunter2", blob=b"hunter2", peer="evil\\x1b[2J")
logging.getLogger("websockets").info("< TEXT hunter2")
logging.getLogger("elsewhere").warning("careful")
try:
    secret = "hunter2"
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
"""


def logged(log_format: str) -> str:
    ended = subprocess.run([sys.executable, "-c", SCRIPT, log_format], capture_output=True, check=True)
    assert ended.stdout == b""
    return ended.stderr.decode()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_payload_or_control_character_reaches_the_log(log_format: str) -> None:
    said = logged(log_format).replace('secret = "hunter2"', "")
    assert "hunter2" not in said
    assert "\x1b" not in said
    assert "not shown" not in said
    assert "careful" in said
    assert "ZeroDivisionError" in said


def test_machines_get_one_object_a_line() -> None:
    ready, careful, broken = map(json.loads, logged("json").splitlines())
    assert (ready["event"], ready["level"], ready["port"]) == ("ready", "info", 7)
    assert (ready["passphrase"], ready["blob"], ready["peer"]) == ("(hidden)", "(7 bytes)", "evil\ufffd[2J")
    assert (careful["event"], careful["level"]) == ("careful", "warning")
    assert "Traceback" in broken["exception"]


def test_long_text_is_shortened() -> None:
    shown = hide(None, "info", {"name": "x" * 1000})["name"]
    assert len(shown) == TEXT_CHARACTERS_MAX + 1


def test_every_level_name_is_known_to_the_standard_library() -> None:
    assert set(logs.LEVELS) <= {name.lower() for name in logging.getLevelNamesMapping()}


def test_people_read_durations_and_names_where_programs_get_numbers_and_ids() -> None:
    event = {
        "event": "x",
        "took_seconds": 0.25,
        "peer": "bob (b2)",
        "peer_id": "b2" * 32,
        "node_id": "a1",
        "seconds": 1,
    }
    assert for_people(None, "info", event) == {
        "event": "x",
        "took": "250 ms",
        "peer": "bob (b2)",
        "node_id": "a1",
        "seconds": 1,
    }


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 ms"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (59.94, "59.9 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")],
)
def test_durations_are_shown_as_people_say_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
