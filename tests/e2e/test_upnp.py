"""Opening a port by UPnP at miniupnpd, in network namespaces of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import SAFETY_SECONDS, Node, eventually, write_config
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


DRIVER = f"""
import structlog, sys, trio
from teale_io.port_opening import PortOpener
from teale_proto.contract import SECOND
from teale_proto.effects import MapPort, UnmapPort
from teale_proto.inputs import Address

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

async def main():
    send, hear = trio.open_memory_channel(9)
    opener = PortOpener(send.send_nowait)
    do = opener.performers
    wanted = MapPort(1, {GATEWAY!r}, Address({CLIENT!r}, {PORT}), 600 * SECOND)
    async with trio.open_nursery() as nursery:
        await nursery.start(opener.run)
        for _ in range(2):
            do[MapPort](wanted)
            print(await hear.receive(), flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        do[UnmapPort](UnmapPort(1))
        await opener.wait_idle()
        print("closed", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        do[MapPort](wanted)
        do[UnmapPort](UnmapPort(1))  # while it is being opened
        await opener.wait_idle()
        print("closed", flush=True)
        nursery.cancel_scope.cancel()

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


def test_the_nodes_driver_opens_keeps_and_closes_a_port_and_leaves_none_open_that_was_not_waited_for(home: Lan) -> None:
    command = (*home.prefix("client"), sys.executable, "-c", DRIVER)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        answer = f"PortMapped(request=1, external=Address(host='{WAN}', port={PORT}), lifetime=600000000)\n"
        try:
            assert [client.stdout.readline() for _ in range(2)] == [answer] * 2
            assert f"dnat ip to {CLIENT}:{PORT}" in run(home, "router", "nft", "list", "ruleset")
            for _ in range(2):
                client.stdin.write("go on\n")
                client.stdin.flush()
                assert client.stdout.readline() == "closed\n"
                assert "dnat" not in run(home, "router", "nft", "list", "ruleset")
        finally:
            client.stdin.close()
            client.wait(SAFETY_SECONDS)


def test_a_node_has_its_port_opened_by_upnp_and_closes_it_when_it_stops(home: Lan, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    write_config(folder, wan_enabled=True, wan_relay_url="ws://192.0.2.1:1/ws", wan_udp_port=PORT)
    node = Node("node", folder, prefix=home.prefix("client"))
    try:
        found = eventually(lambda: f"to {CLIENT}:{PORT}" in run(home, "router", "nft", "list", "ruleset"), "a port")
        assert found
        assert node.stop() == 0
        assert "dnat" not in run(home, "router", "nft", "list", "ruleset")
    finally:
        node.kill()
