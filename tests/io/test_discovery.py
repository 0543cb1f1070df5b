"""Discovery by mDNS, on the loopback interface and between two network namespaces."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import ServiceInfo, Zeroconf

from teale_io.discovery import Discovery
from teale_io.interfaces import IpVersions, local_addresses
from teale_io.mdns import SERVICE_TYPE, DiscoveryOptions
from teale_io.service_record import MODEL_STRINGS_MAX, STRING_BYTES_MAX, from_text, to_text
from teale_proto.effects import Advertise
from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId, ServiceFound, ServiceLost, ServiceRecord

DEADLINE_SECONDS = 30
ON_LOOPBACK = DiscoveryOptions(interfaces=("127.0.0.1",), versions=IpVersions.V4, look_seconds=0.2)
# Where somebody vanishes without a word, nobody shall wait two minutes; elsewhere a busy machine must not seem gone.
MORTAL = msgspec.structs.replace(ON_LOOPBACK, ttl_seconds=2)

CHILD = """
import sys, msgspec, trio
from teale_io import logs
from teale_io.discovery import Discovery
from teale_io.mdns import DiscoveryOptions
from teale_proto.effects import Advertise
from teale_proto.inputs import ServiceRecord

async def main(own, options):
    async with trio.open_nursery() as nursery:
        discovery = Discovery(
            feed=lambda event: print(msgspec.json.encode(event).decode(), flush=True),
            own=own,
            options=msgspec.json.decode(options, type=DiscoveryOptions),
        )
        discovery.performers[Advertise](Advertise(ServiceRecord(own, 4321, ("tiny",))))
        nursery.start_soon(discovery.run)

logs.configure()
trio.run(main, *sys.argv[1:])
"""


def some_node() -> NodeId:
    """Return an id that no other test on this machine uses at the same time."""
    return NodeId(os.urandom(32).hex())


class Neighbour:
    """One discovery of this process, and what it has been told of one other node."""

    def __init__(
        self, nursery: trio.Nursery, other: NodeId, options: DiscoveryOptions = ON_LOOPBACK, node: str = ""
    ) -> None:
        self.node = NodeId(node) or some_node()
        self.other = other
        self.sightings: list[ServiceFound | ServiceLost] = []
        self._names: set[str] = set()
        self._more = trio.Event()
        self._discovery = Discovery(feed=self._feed, own=self.node, options=options)
        nursery.start_soon(self._discovery.run)

    def advertise(self, record: ServiceRecord) -> None:
        self._discovery.performers[Advertise](Advertise(record))

    def _feed(self, event: ServiceFound | ServiceLost) -> None:
        # Other tests may be on the same loopback.
        if isinstance(event, ServiceFound) and event.record.node == self.other:
            self._names.add(event.name)
        if event.name in self._names:
            self.sightings.append(event)
            self._more.set()

    async def next(self) -> ServiceFound | ServiceLost:
        with trio.fail_after(DEADLINE_SECONDS):
            while not self.sightings:
                self._more = trio.Event()
                await self._more.wait()
        return self.sightings.pop(0)

    async def found(self) -> ServiceFound:
        sighting = await self.next()
        assert isinstance(sighting, ServiceFound)
        return sighting


@asynccontextmanager
async def child(own: NodeId, options: DiscoveryOptions = MORTAL, *prefix: str) -> AsyncIterator[trio.Process]:
    """Run a discovery in a process of its own."""
    command = [*prefix, sys.executable, "-c", CHILD, own, msgspec.json.encode(options).decode()]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdout.aclose()


async def told(process: trio.Process) -> dict[str, Any]:
    """Return the first thing that a child was told."""
    assert process.stdout is not None
    line = b""
    with trio.fail_after(DEADLINE_SECONDS):
        while b"\n" not in line:
            line += await process.stdout.receive_some()
    news: dict[str, Any] = json.loads(line.partition(b"\n")[0])
    return news


async def test_two_nodes_find_each_other_follow_changes_and_part() -> None:
    async with trio.open_nursery() as nursery:
        bob_node = some_node()
        alice = Neighbour(nursery, bob_node)

        async with trio.open_nursery() as bobs:
            bob = Neighbour(bobs, alice.node, node=bob_node)
            record = ServiceRecord(bob_node, 4321, ("tiny", "a,b%c/ü:7b"), "M3 Max", 36.5)
            bob.advertise(record)
            alice.advertise(ServiceRecord(alice.node, 1234))
            found = await alice.found()
            assert (found.record, found.addresses[0].host, found.addresses[0].port) == (record, "127.0.0.1", 4321)
            assert (await bob.found()).record.node == alice.node
            bob.advertise(ServiceRecord(bob_node, 4321, ("tiny",), "M3 Max", 36.5))
            assert (await alice.found()).record.models == ("tiny",)
            bobs.cancel_scope.cancel()
        assert await alice.next() == ServiceLost(found.name)
        assert alice.sightings == []
        nursery.cancel_scope.cancel()


async def test_a_node_that_vanishes_without_a_word_is_lost_and_found_again_when_it_returns() -> None:
    ghost = some_node()
    async with trio.open_nursery() as nursery:
        alice = Neighbour(nursery, ghost)
        async with child(ghost) as process:
            found = await alice.found()
            process.send_signal(signal.SIGKILL)
            assert await alice.next() == ServiceLost(found.name)
        async with child(ghost):
            assert (await alice.found()).record == found.record
        nursery.cancel_scope.cancel()


async def test_a_nodes_own_advertisement_is_not_news() -> None:
    async with trio.open_nursery() as nursery:
        alice = Neighbour(nursery, some_node())
        alice.other = alice.node
        bob = Neighbour(nursery, alice.node)
        alice.advertise(ServiceRecord(alice.node, 1234))
        await bob.found()
        assert alice.sightings == []
        nursery.cancel_scope.cancel()


async def test_services_that_break_the_rules_are_ignored_and_harm_nobody() -> None:
    honest = some_node()
    properties: list[dict[str, bytes | str]] = [
        {},
        {"deviceID": "an uuid, perhaps"},
        {"deviceID": b"\xff" * 64},
        {"deviceID": some_node(), "ram": "nan"},
        {"deviceID": some_node(), "version": "9" * 200},
        {"deviceID": some_node(), "models": b"\xfe"},
    ]
    zeroconf = await trio.to_thread.run_sync(lambda: Zeroconf(interfaces=["127.0.0.1"]))

    def advertise() -> None:
        for number, each in enumerate(properties):
            name = f"{honest[:20]}-{number}.{SERVICE_TYPE}"
            zeroconf.register_service(
                ServiceInfo(SERVICE_TYPE, name, 99, properties=each, server="x.local.", parsed_addresses=["127.0.0.1"]),
                cooperating_responders=True,
            )

    seen: list[Any] = []
    async with trio.open_nursery() as nursery:
        alice = Neighbour(nursery, honest)
        watching = Discovery(feed=seen.append, own=some_node(), options=ON_LOOPBACK)
        nursery.start_soon(watching.run)
        await trio.to_thread.run_sync(advertise)
        bob = Neighbour(nursery, alice.node, node=honest)
        bob.advertise(ServiceRecord(honest, 4321))
        assert (await alice.found()).record.node == honest
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(zeroconf.close)
    assert [event for event in seen if event.name.startswith(f"{honest[:20]}-")] == []


async def test_no_more_services_are_known_than_allowed() -> None:
    options = DiscoveryOptions(interfaces=("127.0.0.1",), versions=IpVersions.V4, look_seconds=0.2, services_max=2)
    seen: list[ServiceFound] = []

    def note(event: Any) -> None:
        if isinstance(event, ServiceFound):
            seen.append(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Discovery(feed=note, own=some_node(), options=options).run)
        witness = some_node()
        others = [Neighbour(nursery, witness) for _ in range(4)]
        for each in others:
            each.advertise(ServiceRecord(each.node, 4321))
        last = Neighbour(nursery, others[-1].node, node=witness)
        last.advertise(ServiceRecord(witness, 1234))
        for each in others:
            await each.found()
        assert len({event.name for event in seen}) <= 2
        nursery.cancel_scope.cancel()


async def test_an_interface_that_is_not_there_is_waited_for() -> None:
    async with trio.open_nursery() as nursery:
        options = DiscoveryOptions(interfaces=("nowhere0",), look_seconds=0.01)
        Neighbour(nursery, some_node(), options)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()


def test_interfaces_are_chosen_by_name_or_address() -> None:
    (loopback,) = local_addresses(("127.0.0.1",))
    assert loopback in local_addresses((loopback.interface,), IpVersions.V4)
    assert loopback not in local_addresses(versions=IpVersions.V4)
    assert all(each.is_v6 for each in local_addresses((loopback.interface,), IpVersions.V6))


def ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def namespaces() -> Any:
    """Two network namespaces with one cable between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the ip command")
    names = [f"teale{os.getpid()}{end}" for end in "ab"]
    cables = [f"tl{os.getpid() % 100_000}{end}" for end in "ab"]
    try:
        if not all(ip("netns", "add", name) for name in names):
            pytest.skip("network namespaces are not allowed here")
        assert ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), 1):
            assert ip("link", "set", cable, "netns", name)
            assert ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", cable)
            assert ip("-n", name, "link", "set", cable, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


async def test_nodes_on_two_machines_find_each_other(namespaces: list[str]) -> None:
    nodes = [some_node(), some_node()]
    options = DiscoveryOptions()
    first, second = (("ip", "netns", "exec", name) for name in namespaces)
    async with child(nodes[0], options, *first) as a, child(nodes[1], options, *second) as b:
        for process, number in ((a, 1), (b, 0)):
            news = await told(process)
            assert news["record"]["node"] == nodes[number]
            assert f"10.77.0.{number + 1}" in [address["host"] for address in news["addresses"]]


@given(
    models=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=200)),
    chip=st.text(max_size=100),
    ram=st.floats(0, 1e5),
    port=st.integers(1, 65535),
)
def test_what_is_advertised_is_read_back_as_far_as_it_fits(models: list[str], chip: str, ram: float, port: int) -> None:
    node = NodeId("ab" * 32)
    text = to_text(ServiceRecord(node, port, tuple(models), chip.encode(errors="ignore").decode(), ram))
    assert all(len(key) + 1 + len(value) <= STRING_BYTES_MAX for key, value in text.items())
    assert len(text) <= 4 + MODEL_STRINGS_MAX
    record = from_text({**text}, port)
    assert (record.node, record.port, record.version) == (node, port, 1)
    assert list(record.models) == [model for model in dict.fromkeys(models) if model in record.models]
    if sum(len(model.encode()) * 3 for model in models) < 200:
        assert record.models == tuple(dict.fromkeys(models))


@given(
    st.dictionaries(
        st.sampled_from([b"deviceID", b"chip", b"ram", b"version", b"models", b"models1"]),
        st.none() | st.binary(max_size=255) | st.sampled_from([b"1", b"inf", b"-1", b"ab" * 32, b"a,,b,%zz"]),
    ),
    st.none() | st.integers(-1, 70_000),
)
def test_any_text_record_is_an_advertisement_or_refused(text: dict[bytes, bytes | None], port: int | None) -> None:
    try:
        record = from_text(text, port)
    except PeerError:
        return
    assert len(record.node) == 64
    assert 0 < record.port < 65536
    assert 0 <= record.ram_gb < 1e6
