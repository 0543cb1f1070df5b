"""The port mapping core against miniupnpd, an independent gateway, in network namespaces of its own."""

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from teale_proto.contract import SECOND, Value
from teale_proto.effects import SendDatagram
from teale_proto.inputs import WAKE, Address, DatagramReceived
from teale_proto.nat import nat_pmp
from teale_proto.nat.port_mapping import PortMapping
from teale_proto.nat.port_mapping_values import (
    MappingUnwanted,
    MappingWanted,
    PortMappingInput,
    Protocol,
    ReportPortMapped,
    ReportPortReleased,
    Setting,
)
from tests.e2e.harness import SAFETY_SECONDS
from tests.e2e.namespaces import Lan

V = TypeVar("V", bound=Value)

GATEWAY, CLIENT = "10.77.0.1", "10.77.0.2"
# miniupnpd opens nothing where its own address is not a global one; nothing leaves the namespaces.
WAN, STRANGER = "8.8.4.1", "8.8.4.2"
PORT = 40000

RULES = """
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain forward {
        type filter hook forward priority 0; policy drop;
        iifname "lan" accept
        ct state established accept
        jump miniupnpd
    }
    chain prerouting {
        type nat hook prerouting priority -100;
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        jump postrouting_miniupnpd
        oifname "wan" masquerade
    }
}
"""
CONFIG = """
ext_ifname=wan
listening_ip=lan
enable_natpmp=PCP
enable_upnp=UPNP
http_port=5000
secure_mode=yes
allow 1024-65535 10.77.0.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Lan]:
    """A client and a stranger with a router between them that speaks PCP and NAT-PMP."""
    with router(tmp_path) as lan:
        yield lan


@contextmanager
def router(tmp_path: Path, *, upnp: bool = False) -> Iterator[Lan]:
    """Make a client and a stranger with a router between them that runs miniupnpd: for PCP, or for UPnP alone."""
    if shutil.which("miniupnpd") is None or shutil.which("nft") is None:
        pytest.skip("needs miniupnpd and nft")
    with Lan("router", "client", "stranger") as lan:
        run(lan, "router", "ip", "link", "add", "wan", "type", "veth", "peer", "wan", "netns", name(lan, "stranger"))
        for machine, address in (("router", WAN), ("stranger", STRANGER)):
            run(lan, machine, "ip", "addr", "add", f"{address}/24", "dev", "wan")
            run(lan, machine, "ip", "link", "set", "wan", "up")
        run(lan, "stranger", "ip", "link", "set", "lan", "down")
        run(lan, "client", "ip", "route", "replace", "default", "via", GATEWAY)
        run(lan, "router", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        run(lan, "router", "nft", "-f", "-", text=RULES)
        config = tmp_path / "miniupnpd.conf"
        said = CONFIG.replace("PCP", "no" if upnp else "yes").replace("UPNP", "yes" if upnp else "no")
        config.write_text(f"{said}\nlease_file={tmp_path}/leases\n")
        command = (*lan.prefix("router"), "miniupnpd", "-d", "-f", str(config), "-P", str(tmp_path / "pid"))
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
            assert daemon.stderr is not None
            try:
                for line in daemon.stderr:
                    if ("HTTP listening" if upnp else "Listening for NAT-PMP/PCP") in line:
                        break
                else:
                    pytest.skip("this miniupnpd does not start with such a configuration")
                yield lan
            finally:
                daemon.terminate()
                daemon.communicate()


def name(lan: Lan, machine: str) -> str:
    return lan.prefix(machine)[-1]


def run(lan: Lan, machine: str, *command: str, text: str | None = None) -> str:
    done = subprocess.run([*lan.prefix(machine), *command], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bound(lan: Lan, machine: str, host: str, port: int = 0) -> socket.socket:
    """Return a UDP socket on a machine."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((host, port))
        made.settimeout(SAFETY_SECONDS)
        return made

    return lan._there(name(lan, machine), make)


class Driver:
    """A socket and a clock for the core, for as long as it takes to hear of something."""

    def __init__(self, lan: Lan) -> None:
        self.socket = bound(lan, "client", CLIENT)
        self.local = Address(*self.socket.getsockname())
        self.core = PortMapping(Setting(self.local, GATEWAY, PORT), random.SystemRandom())
        self._news: list[Value] = []

    def feed(self, event: PortMappingInput) -> None:
        for effect in self.core.handle(event, _now()):
            if isinstance(effect, SendDatagram):
                self.socket.sendto(effect.data, (effect.remote.host, effect.remote.port))
            else:
                self._news.append(effect)

    def hear(self, kind: type[V]) -> V:
        """Return the first report, which must be one of these."""
        gives_up_at = _now() + int(SAFETY_SECONDS * SECOND)
        while not self._news and _now() < gives_up_at:
            self.socket.settimeout(max(self.core.deadline - _now(), 1) / SECOND)
            try:
                data, remote = self.socket.recvfrom(2048)
            except TimeoutError:
                self.feed(WAKE)
            else:
                self.feed(DatagramReceived(self.local, Address(*remote), data))
        (report,) = self._news
        assert isinstance(report, kind)
        self._news.clear()
        return report


def _now() -> int:
    return time.monotonic_ns() // 1000


def test_miniupnpd_opens_a_port_that_a_stranger_comes_in_by_and_closes_it_again(home: Lan) -> None:
    driver = Driver(home)
    driver.feed(MappingWanted())
    report = driver.hear(ReportPortMapped)
    assert (report.external, report.protocol, report.routable) == (Address(WAN, PORT), Protocol.PCP, True)
    listening, stranger = bound(home, "client", CLIENT, PORT), bound(home, "stranger", STRANGER)
    stranger.sendto(b"hello", (WAN, PORT))
    assert listening.recvfrom(100) == (b"hello", stranger.getsockname())
    driver.feed(MappingUnwanted())
    driver.hear(ReportPortReleased)
    assert "dnat" not in run(home, "router", "nft", "list", "ruleset")
    for used in (listening, stranger, driver.socket):
        used.close()


def test_miniupnpd_speaks_the_nat_pmp_that_we_read_and_write(home: Lan) -> None:
    with bound(home, "client", CLIENT) as asking:

        def ask(request: bytes) -> nat_pmp.Response:
            asking.sendto(request, (GATEWAY, 5351))
            return nat_pmp.decode_response(asking.recv(2048))

        address = ask(nat_pmp.encode(nat_pmp.AddressRequest()))
        assert isinstance(address, nat_pmp.AddressResponse)
        assert address.host == WAN
        for lifetime, port in ((3600, PORT), (0, 0)):
            mapped = ask(nat_pmp.encode(nat_pmp.MapRequest(nat_pmp.Opcode.MAP_UDP, PORT, port, lifetime)))
            assert isinstance(mapped, nat_pmp.MapResponse)
            assert (mapped.internal_port, mapped.external_port, mapped.lifetime_seconds) == (PORT, port, lifetime)
        refused = ask(b"\0\7" + bytes(10))
        assert isinstance(refused, nat_pmp.Refused)
        assert refused.result == nat_pmp.ResultCode.UNSUPPORTED_OPCODE
