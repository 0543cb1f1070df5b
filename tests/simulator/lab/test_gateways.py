"""Routers that open ports on request: miniupnpd in the router's place, asked by NAT-PMP."""

import shutil
import socket

import pytest

from simulator.lab.internet import Internet
from simulator.lab.port_mapping import PROGRAM
from simulator.nat_grid import KINDS
from simulator.net.link import Link
from teale_proto.contract import MILLISECOND
from teale_proto.inputs import Address
from teale_proto.nat import nat_pmp
from tests.simulator.lab.talking import ANSWER_SECONDS, SERVER, bound, gets_through, seen_from

LINE = Link(latency=MILLISECOND)
PORT = 7475
NAT_PMP = 5351


@pytest.fixture(autouse=True)
def installed() -> None:
    if shutil.which(PROGRAM, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        pytest.skip(f"needs {PROGRAM}")


def opened(net: Internet, host: str) -> nat_pmp.Response:
    """Ask the router of a host to open PORT, and return its answer."""
    asking = bound(net.host(host))
    asking.settimeout(ANSWER_SECONDS)
    site = net.host(host).site
    assert site is not None
    with asking:
        request = nat_pmp.MapRequest(nat_pmp.Opcode.MAP_UDP, PORT, PORT, 600)
        asking.sendto(nat_pmp.encode(request), (site.gateway, NAT_PMP))
        return nat_pmp.decode_response(asking.recv(2048))


@pytest.mark.parametrize("kind", ["EIM+EIF", "EIM+APDF random", "APDM+APDF", "APDM sequential"])
def test_a_port_is_opened_to_strangers_until_the_router_has_forgotten_it(kind: str, net: Internet) -> None:
    site = net.add_site("home", KINDS[kind], LINE, offers_port_mapping=True)
    alice, stranger = net.add_host("alice", "home"), net.add_server("stranger", (SERVER,), LINE)
    net.start()
    assert site.outside is not None
    outside = Address(site.outside, PORT)
    with bound(alice, port=PORT) as inside, bound(stranger, SERVER) as theirs:
        assert not gets_through(theirs, outside, inside)
        for _ in range(2):
            response = opened(net, "alice")
            assert isinstance(response, nat_pmp.MapResponse)
            assert (response.internal_port, response.external_port) == (PORT, PORT)
            assert gets_through(theirs, outside, inside)
            # Whoever came in is answered from there.
            assert seen_from(inside, theirs) == outside
            net.reboot_nat("home")
            assert not gets_through(theirs, outside, inside)


def test_a_router_behind_a_carriers_opens_nothing(net: Internet) -> None:
    net.add_site("home", KINDS["carrier over home"], LINE, offers_port_mapping=True)
    net.add_host("alice", "home")
    net.start()
    assert isinstance(opened(net, "alice"), nat_pmp.Refused)


def test_upnp_is_offered_inside_and_nothing_outside(net: Internet) -> None:
    site = net.add_site("home", KINDS["EIM+EIF"], LINE, offers_port_mapping=True)
    alice, stranger = net.add_host("alice", "home"), net.add_server("stranger", (SERVER,), LINE)
    net.start()
    alice.namespace.call(lambda: socket.create_connection((site.gateway, 5000), ANSWER_SECONDS)).close()
    with pytest.raises(TimeoutError):
        stranger.namespace.call(lambda: socket.create_connection((str(site.outside), 5000), 0.3))
