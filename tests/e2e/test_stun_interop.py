"""STUN with programs that are not ours, and NATs of the kernel's own as `teale doctor` sees them.

The others are coturn (Debian's `coturn`: turnserver, turnutils_natdiscovery, turnutils_stunclient) and RFC 3489's own
client (Debian's `stun-client`). What is not installed is skipped.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from teale_io import netcheck
from teale_io.netcheck import Server
from teale_proto.inputs import Address
from teale_proto.nat.kinds import Filtering
from tests.e2e.harness import SAFETY_SECONDS
from tests.e2e.namespaces import Lan
from tests.e2e.routers import become_router
from tests.e2e.test_port_mapping import GATEWAY, WAN, home, name, run
from tests.loopback import FIRST_HOST, SECOND_HOST, four_endpoints

__all__ = ["home"]

RELAY = "from teale_io.relay_app import main; main()"


@contextmanager
def relay(*options: str, prefix: tuple[str, ...] = ()) -> Iterator[int]:
    """Run a relay; yields the number of its port."""
    command = [*prefix, sys.executable, "-c", RELAY, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().strip().rsplit(":", 1)[1].removesuffix("/ws"))
        finally:
            process.send_signal(signal.SIGINT)


def output_of(*command: str) -> str:
    """Return what a program says, on both of its streams."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=SAFETY_SECONDS
    )
    return done.stdout


# Their clients at our server.


def test_coturns_client_reads_our_answer() -> None:
    with relay("--port", "0") as port:
        said = output_of("turnutils_stunclient", "-p", str(port), FIRST_HOST)
    assert f"UDP reflexive addr: {FIRST_HOST}:" in said


@pytest.mark.parametrize(
    ("options", "ending"),
    [((), "The response is an error 420"), (("--stun-alternate", SECOND_HOST), "RFC 5780 response")],
    ids=["one address", "two"],
)
def test_coturns_client_comes_to_an_end_when_it_wants_answers_at_other_ports(
    options: tuple[str, ...], ending: str
) -> None:
    """It sends RESPONSE-PORT, and waits for ever for an answer, or a refusal, at that port."""
    with relay("--port", "0", *options) as port:
        said = output_of("turnutils_stunclient", "-f", "-p", str(port), FIRST_HOST)
    assert f"UDP reflexive addr: {FIRST_HOST}:" in said
    assert ending in said


@pytest.mark.parametrize("padding", [(), ("-P",)], ids=["plain", "padded"])
def test_coturns_discovery_of_mapping_and_filtering_works_with_us(padding: tuple[str, ...]) -> None:
    with relay("--port", "0", "--stun-alternate", SECOND_HOST) as port:
        said = output_of("turnutils_natdiscovery", "-m", "-f", *padding, "-p", str(port), FIRST_HOST)
    assert f"Response origin: : {FIRST_HOST}:{port}" in said
    assert f"Other addr: : {SECOND_HOST}:{port + 1}" in said
    assert "Endpoint Independent Mapping" in said
    assert "Endpoint Independent Filtering" in said


def test_the_client_of_rfc_3489_finds_no_nat_with_us() -> None:
    with relay("--port", "0", "--stun-alternate", SECOND_HOST) as port:
        said = output_of("stun", f"{FIRST_HOST}:{port}", "-v")
    assert "Primary: Open" in said


# Our client at their server.


@contextmanager
def coturn(folder: Path) -> Iterator[Server]:
    """Run coturn's server as a STUN server with two addresses and two ports."""
    if shutil.which("turnserver") is None:
        pytest.skip("needs turnserver")
    with four_endpoints() as free:
        port, alternate, *_ = (sock.getsockname()[1] for sock in free)
    words = (
        *("turnserver", "-n", "--stun-only", "-L", FIRST_HOST, "-L", SECOND_HOST, "--no-tls", "--no-dtls", "--no-cli"),
        *("-p", str(port), "--alt-listening-port", str(alternate), "--log-file", "stdout"),
        *("--pidfile", str(folder / "pid"), "--db", str(folder / "db")),
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "Total General servers" in line:
                    break
            else:
                pytest.skip("this turnserver does not start with such options")
            yield Server(FIRST_HOST, port)
        finally:
            process.terminate()
            process.communicate()


def test_our_client_finds_out_everything_from_coturn(tmp_path: Path) -> None:
    with coturn(tmp_path) as server:
        [family] = netcheck.run([server]).families
    assert family.server == Address(server.host, server.port)
    assert family.behaviour is not None
    assert not family.behaviour.translated
    assert family.behaviour.filtering is Filtering.ENDPOINT_INDEPENDENT


# The kernel's NATs, between a client and a relay with two addresses, each in a namespace of its own.

CLIENT, ROUTER_OUTSIDE, RELAY_FIRST, RELAY_SECOND = "10.77.0.2", "203.0.113.1", "203.0.113.2", "203.0.113.3"
PORT = 11437


@contextmanager
def behind(kind: str) -> Iterator[Lan]:
    """Make a client behind a router of that kind, and a machine with two addresses on the other side."""
    if shutil.which("nft") is None:
        pytest.skip("needs nft")
    with Lan("router", "client", "relay") as lan:
        run(lan, "router", "ip", "link", "add", "wan", "type", "veth", "peer", "wan", "netns", name(lan, "relay"))
        for machine, addresses in (("router", (ROUTER_OUTSIDE,)), ("relay", (RELAY_FIRST, RELAY_SECOND))):
            for address in addresses:
                run(lan, machine, "ip", "addr", "add", f"{address}/24", "dev", "wan")
            run(lan, machine, "ip", "link", "set", "wan", "up")
        run(lan, "relay", "ip", "link", "set", "lan", "down")
        run(lan, "relay", "ip", "route", "add", "10.77.0.0/24", "via", ROUTER_OUTSIDE)
        run(lan, "client", "ip", "route", "replace", "default", "via", "10.77.0.1")
        become_router(lan, "router", kind, outside=ROUTER_OUTSIDE)
        yield lan


def doctor(lan: Lan, home: Path) -> dict[str, Any]:
    """Return what a netcheck on the client finds over IPv4."""
    command = (
        *(*lan.prefix("client"), sys.executable, "-m", "teale_io.cli", "doctor", "--skip-models", "--json"),
        *("--stun", f"{RELAY_FIRST}:{PORT}"),
    )
    environ = {**os.environ, "TEALE_HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=2 * SAFETY_SECONDS)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["netcheck"]["ipv4"]
    return found


EIM, APDM = "endpoint-independent", "address-and-port-dependent"
EIF, ADF, APDF = "endpoint-independent", "address-dependent", "address-and-port-dependent"


@pytest.mark.parametrize(
    ("kind", "translated", "mapping", "filtering"),
    [
        ("public", False, EIM, EIF),
        ("firewall", False, EIM, APDF),
        ("eim-eif", True, EIM, EIF),
        ("eim-adf", True, EIM, ADF),
        ("eim-apdf", True, EIM, APDF),
        ("apdm-apdf", True, APDM, APDF),
    ],
)
def test_a_nat_of_the_kernel_is_what_it_is_found_to_be(
    kind: str, translated: bool, mapping: str, filtering: str, tmp_path: Path
) -> None:
    with behind(kind) as lan, two_addresses(lan):
        found = doctor(lan, tmp_path)
    assert (found["translated"], found["mapping"], found["filtering"]) == (translated, mapping, filtering)
    assert found["local"] == CLIENT
    assert found["mapped"].startswith(f"{ROUTER_OUTSIDE if translated else CLIENT}:")


def test_blocked_udp_is_found_to_be_blocked(tmp_path: Path) -> None:
    with behind("udp-blocked") as lan, two_addresses(lan):
        found = doctor(lan, tmp_path)
    assert (found["udp_blocked"], found["server"]) == (True, None)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("eim-eif", ("Endpoint Independent Mapping", "Endpoint Independent Filtering")),
        ("eim-adf", ("Endpoint Independent Mapping", "Address Dependent Filtering")),
        ("eim-apdf", ("Endpoint Independent Mapping", "Address and Port Dependent Filtering")),
        ("apdm-apdf", ("Address and Port Dependent Mapping", "Address and Port Dependent Filtering")),
    ],
)
def test_coturns_discovery_agrees_about_it(kind: str, found: tuple[str, str]) -> None:
    if shutil.which("turnutils_natdiscovery") is None:
        pytest.skip("needs turnutils_natdiscovery")
    with behind(kind) as lan, two_addresses(lan):
        said = output_of(*lan.prefix("client"), "turnutils_natdiscovery", "-m", "-f", "-p", str(PORT), RELAY_FIRST)
    assert all(f"NAT with {each}!" in said for each in found), said


def test_the_gateway_opens_a_port_to_a_netcheck_and_closes_it(home: Lan, tmp_path: Path) -> None:
    command = (*home.prefix("client"), sys.executable, "-m", "teale_io.cli", "doctor", "--skip-models", "--json")
    environ = {**os.environ, "TEALE_HOME": str(tmp_path)}
    done = subprocess.run((*command, "--port-mapping"), capture_output=True, text=True, check=False, env=environ)
    found = json.loads(done.stdout)["netcheck"]
    assert found["gateway"] == GATEWAY
    assert found["port_mapping"]["outcome"] == "PCP"
    assert found["port_mapping"]["external"].startswith(f"{WAN}:")
    assert "dnat" not in run(home, "router", "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")


def two_addresses(lan: Lan) -> Any:
    return relay(
        *("--host", RELAY_FIRST, "--port", str(PORT), "--stun-alternate", RELAY_SECOND), prefix=lan.prefix("relay")
    )


LIFETIME = f"""
import json, trio
from teale_io.nat_lifetime import Span, find_lifetime
from teale_proto.inputs import Address

async def main():
    span = Span(500_000, 8_000_000, 1_000_000)
    found = await find_lifetime({CLIENT!r}, Address({RELAY_FIRST!r}, {PORT}), tell=lambda _: None, span=span)
    print(json.dumps([found.outcome.value, found.known.at_least / 1e6, (found.known.at_most or 0) / 1e6]))

trio.run(main)
"""


@pytest.mark.parametrize("kind", ["eim-apdf", "apdm-apdf"])
def test_how_long_the_kernel_remembers_is_found_out(kind: str) -> None:
    with behind(kind) as lan:
        for which in ("udp_timeout", "udp_timeout_stream"):
            run(lan, "router", "sysctl", "-qw", f"net.netfilter.nf_conntrack_{which}=4")
        relay_options = ("--host", RELAY_FIRST, "--port", str(PORT))
        with relay(*relay_options, prefix=lan.prefix("relay")):
            outcome, at_least, at_most = json.loads(run(lan, "client", sys.executable, "-c", LIFETIME))
    assert outcome == "found"
    # The kernel clears away what is over about once a second, and sooner where somebody asks for it.
    assert at_least <= 5.5
    assert 3.5 <= at_most <= 6.5
    assert at_most - at_least <= 1.1
