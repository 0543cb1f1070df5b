"""Opening a port by UPnP at miniupnpd, in network namespaces of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import SAFETY_SECONDS
from tests.e2e.namespaces import Lan
from tests.e2e.test_port_mapping import CLIENT, GATEWAY, PORT, STRANGER, WAN, bound, router, run

pytest.importorskip("miniupnpc")

SCRIPT = f"""
import json, sys, trio
from teale_io import upnp
from teale_proto.inputs import Address

async def main():
    gateway = await upnp.find_gateway({GATEWAY!r}, {CLIENT!r})
    mapping = await gateway.request(Address({CLIENT!r}, {PORT}), 600)
    print(json.dumps([mapping.external.host, mapping.external.port, mapping.lifetime_seconds]), flush=True)
    sys.stdin.readline()
    renewed = await gateway.renew(mapping, 1200)
    print(json.dumps([renewed.external.host, renewed.external.port, renewed.lifetime_seconds]), flush=True)
    sys.stdin.readline()
    await gateway.release(renewed)
    try:
        await gateway.request(Address({CLIENT!r}, 80), 600)
    except upnp.UpnpRefused as error:
        print(json.dumps(error.reason.value), flush=True)

trio.run(main)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Lan]:
    with router(tmp_path, upnp=True) as lan:
        yield lan


def test_miniupnpd_opens_a_port_by_upnp_renews_it_and_closes_it_again(home: Lan) -> None:
    command = (*home.prefix("client"), sys.executable, "-c", SCRIPT)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None

        def next_line() -> Any:
            assert client.stdout is not None
            return json.loads(client.stdout.readline())

        try:
            assert next_line() == [WAN, PORT, 600]
            listening, stranger = bound(home, "client", CLIENT, PORT), bound(home, "stranger", STRANGER)
            stranger.sendto(b"hello", (WAN, PORT))
            assert listening.recvfrom(100) == (b"hello", stranger.getsockname())
            for used in (listening, stranger):
                used.close()
            client.stdin.write("go on\n")
            client.stdin.flush()
            assert next_line() == [WAN, PORT, 1200]
            assert "dnat" in run(home, "router", "nft", "list", "ruleset")
            client.stdin.write("go on\n")
            client.stdin.flush()
            assert next_line() in ("not authorized", "no resources", "other"), "below 1024 nothing is opened"
            assert "dnat" not in run(home, "router", "nft", "list", "ruleset")
        finally:
            client.stdin.close()
            client.wait(SAFETY_SECONDS)


def test_the_doctor_tries_upnp_where_nothing_else_is_spoken(home: Lan, tmp_path: Path) -> None:
    command = (
        *(*home.prefix("client"), sys.executable, "-m", "teale_io.cli", "doctor", "--skip-models", "--json"),
        "--port-mapping",
    )
    environ = {**os.environ, "TEALE_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=2 * SAFETY_SECONDS)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)["netcheck"]["port_mapping"]
    assert said["outcome"] == "UPnP"
    assert said["external"].startswith(f"{WAN}:")
    assert "dnat" not in run(home, "router", "nft", "list", "ruleset")
