"""The files in `deploy/` say what the relay understands."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from teale_io.relay_app import RelayOptions, main

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT, DOCKERFILE = (DEPLOY / "teale-relay.service").read_text(), (DEPLOY / "Dockerfile").read_text()
OPTIONS = {name for parameter in main.params for name in parameter.opts}


def unit(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)


def test_the_service_starts_with_options_that_exist() -> None:
    [start] = unit("ExecStart")
    used = {word for word in shlex.split(start) if word.startswith("--")}
    assert used
    assert used <= OPTIONS
    assert {word for word in re.findall(r"--[a-z-]+", (DEPLOY / "README.md").read_text()) if word in OPTIONS}


def test_the_service_has_time_to_drain_and_files_for_its_connections() -> None:
    [start] = unit("ExecStart")
    words = shlex.split(start)
    drain_seconds = float(words[words.index("--drain-seconds") + 1])
    assert float(unit("TimeoutStopSec")[0]) > drain_seconds + 10
    connections_max = RelayOptions().connections_max
    assert int(unit("LimitNOFILE")[0]) > connections_max + 100
    assert unit("ExecReload") == ["/bin/kill -HUP $MAINPID"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_wrong_with_the_service(tmp_path: Path) -> None:
    # It also asks whether the program is there, which only an installed one is.
    file = tmp_path / "teale-relay.service"
    file.write_text(UNIT.replace("/opt/teale/bin/teale-relay", "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_image_runs_the_relay_as_nobody_in_particular() -> None:
    entry = re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    assert entry is not None
    assert {word for word in json.loads(entry[1]) if word.startswith("--")} <= OPTIONS
    assert re.search(r"^USER [1-9]\d+$", DOCKERFILE, re.MULTILINE)
    check = re.search(r"^ +CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert check is not None
    compile(json.loads(check[1])[2], "HEALTHCHECK", "exec")
