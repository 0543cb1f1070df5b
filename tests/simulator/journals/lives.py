"""Lives of cores in the small worlds of the tests, as journals in files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from teale_proto.errors import LocalError
from teale_proto.journal import Ending, Header, NodeMade, Recording, RecordingRng, RelayMade, ending
from teale_proto.node import Node, NodeConfig
from teale_proto.relay.server import RelayServer, RelayServerConfig
from tests.proto import test_laws as laws
from tests.proto.world import UNIX_TIME_AT_ZERO, AnyCore, Entry, World, identity


class Life(NamedTuple):
    """What a core was fed, and how it is made anew."""

    world: Callable[[], World]
    name: str
    number: int
    config: dict[str, Any]

    @property
    def steps(self) -> Sequence[Entry]:
        return self.world().journals[self.name]

    def core(self, rng: RecordingRng) -> tuple[AnyCore, NodeMade | RelayMade]:
        if not self.number:
            config = RelayServerConfig(names=(self.name,))
            return RelayServer(config, rng, unix_time_at_zero=UNIX_TIME_AT_ZERO), RelayMade(config)
        made = NodeMade(NodeConfig(display_name=self.name, **self.config), identity(self.number))
        return Node(made.config, made.identity, rng, unix_time_at_zero=UNIX_TIME_AT_ZERO), made


LIVES = {
    "node on a LAN, asking": Life(laws.eventful_lan, "a", 1, laws.LAN),
    "node on a LAN, answering": Life(laws.eventful_lan, "b", 2, laws.LAN),
    "node behind a relay, asking": Life(laws.eventful_relay, "a", 1, laws.WAN),
    "node behind a relay, answering": Life(laws.eventful_relay, "b", 2, laws.WAN),
    "node on a LAN with a passcode": Life(laws.eventful_doors, "a", 1, laws.PASSCODE),
    "node with the wrong passcode": Life(laws.eventful_doors, "d", 4, laws.WRONG),
    "node with a deployed peer": Life(laws.eventful_past, "a", 1, laws.LEGACY),
    "relay": Life(laws.eventful_relay, laws.RELAY, 0, {}),
}
ASKING = LIVES["node behind a relay, asking"]


class File:
    """A journal that is written to a file at once."""

    is_open = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, record: bytes | bytearray) -> None:
        with self._path.open("ab") as file:
            file.write(record)

    def give_up(self, why: str) -> None:
        raise AssertionError(why)


def recorded(
    life: Life,
    path: Path,
    *,
    illegal: Sequence[Any] = (),
    first: Sequence[Any] = (),
    breaks: Sequence[Any] = (),
    end: Ending | None = Ending.STOPPED,
    host: str = "",
) -> Path:
    """Live a life again with a journal.

    What is `illegal` is fed before, and refused. Where something `breaks` the core after what is fed `first`, that is
    the end of it.
    """
    rng = RecordingRng(Random(f"{life.number or life.name}"))
    core, made = life.core(rng)
    header = Header(host or life.name, "0.1.0", UNIX_TIME_AT_ZERO, made)
    recording: Recording[Any, Any] = Recording(core, rng, header, File(path))
    for event in illegal:
        with pytest.raises(LocalError):
            recording.handle(event, 0)
    for event in first:
        recording.handle(event, 0)
    for event in breaks:
        with pytest.raises(AssertionError):
            recording.handle(event, 0)
    for now, event, effects in () if breaks else life.steps:
        assert recording.handle(event, now) == effects
    if end is not None:
        File(path).write(ending(end))
    return path
