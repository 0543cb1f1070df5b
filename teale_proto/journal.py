"""A journal: everything that went into a core, so that the same core can be taken through it again.

A core is a function of what it was made with, of its inputs with their instants and of its entropy. A journal holds
exactly these, and of what came out a digest: whoever feeds it to a new core gets every effect back, and knows whether
they are the same. It therefore holds the node's secret key and everything that was said, in plain text.

    file    = MAGIC record*
    record  = length (4 bytes, big-endian) msgpack
    records: one Header, any number of Steps, and an Ended unless the program was killed

A file that ends in the middle of a record is whole up to there. What is written here, `Recording` hands to whoever
keeps it; what is read, `records` asks for by a function: neither knows of files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from hashlib import blake2b
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, get_args

import msgspec

from teale_proto.contract import Core, Instant, Value
from teale_proto.errors import LocalError, TealeError
from teale_proto.inputs import NodeInput, RelayInput
from teale_proto.node_config import NodeConfig
from teale_proto.relay.limits import RelayServerConfig
from teale_proto.rng import Rng
from teale_proto.secure.identity import Identity
from teale_proto.secure.passcode import Passcode

MAGIC: Final = b"teale journal 1\n"
"""How a journal begins; the number is that of the form."""
LENGTH_BYTES: Final = 4
RECORD_BYTES_MAX: Final = 64 << 20
"""A longer record is neither written nor read; the longest input is a WebSocket message of 16 MiB or a few of them."""
DIGEST_BYTES: Final = 8

Draw: TypeAlias = float | int | bytes | tuple[int, ...]
"""What one draw came to: of `random`, `randrange`, `randbytes`, and of `sample` the places in the population."""

I = TypeVar("I")  # noqa: E741  (the letter that `Core` uses)
E = TypeVar("E", bound=Value)
T = TypeVar("T")


class JournalError(TealeError):
    """What was read is no journal, or none that this version can read."""


class NodeMade(Value, tag="node"):
    """What a node was made with."""

    config: NodeConfig
    identity: Identity


class RelayMade(Value, tag="relay"):
    """What a relay was made with."""

    config: RelayServerConfig


class Header(Value, tag="header", array_like=True):
    """One life of one core, as it began."""

    host: str
    """What whoever recorded it calls the program; free text."""
    version: str
    """Of the program."""
    unix_time_at_zero: int
    """Unix time in microseconds at instant 0: what puts all journals of a machine on one clock."""
    made: NodeMade | RelayMade
    draws: tuple[Draw, ...] = ()
    """The entropy that was drawn while the core was made."""
    suite: str = "noise"


class Step(Value, tag="step", array_like=True):
    """One input, as it is written."""

    now: Instant
    kind: str
    """The name of the input's type."""
    event: msgspec.Raw
    draws: tuple[Draw, ...]
    digest: bytes
    """Of the effects; see `digest_of`."""
    raised: str = ""
    """The type of what the core raised instead: LocalError is a refusal, and anything else a bug."""


class Ending(Enum):
    """Why a journal ends; one that was cut off does not say."""

    STOPPED = "stopped"
    """The program ended properly."""
    FULL = "full"
    """It was allowed no more bytes; the program went on."""


class Ended(Value, tag="ended", array_like=True):
    """The last record."""

    why: Ending


class Fed(NamedTuple):
    """One input, as it is read."""

    now: Instant
    event: Value
    draws: tuple[Draw, ...]
    digest: bytes
    raised: str


def digest_of(effects: Sequence[Value]) -> bytes:
    """Return what stands for `effects` in a journal: nothing for none, else DIGEST_BYTES."""
    if not effects:
        return b""
    encoded = _ENCODER.encode([(type(effect).__name__, effect) for effect in effects])
    return blake2b(encoded, digest_size=DIGEST_BYTES).digest()


# Entropy.


class RecordingRng:
    """Passes entropy on, and remembers what was drawn since it was last asked."""

    __slots__ = ("_drawn", "_rng")

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._drawn: list[Draw] = []

    def taken(self) -> list[Draw]:
        """Return what was drawn since the last call."""
        if not self._drawn:
            return _NOTHING
        drawn, self._drawn = self._drawn, []
        return drawn

    def random(self) -> float:
        """Return a float in [0, 1)."""
        drawn = self._rng.random()
        self._drawn.append(drawn)
        return drawn

    def randrange(self, stop: int, /) -> int:
        """Return an integer in [0, stop)."""
        drawn = self._rng.randrange(stop)
        self._drawn.append(drawn)
        return drawn

    def randbytes(self, n: int, /) -> bytes:
        """Return `n` random bytes."""
        drawn = self._rng.randbytes(n)
        self._drawn.append(drawn)
        return drawn

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return `k` distinct elements of `population`, in random order."""
        places = self._rng.sample(range(len(population)), k)
        self._drawn.append(tuple(places))
        return [population[place] for place in places]


class ReplayingRng:
    """Gives out what was drawn once, in the same order.

    A draw that was not made then, or was another one, comes from `otherwise`, and `differences` says so: the core is
    not the one that was recorded, or depends on something besides its journal.
    """

    __slots__ = ("_draws", "_next", "_otherwise", "differences")

    def __init__(self, draws: Sequence[Draw], *, otherwise: Rng) -> None:
        self._draws = draws
        self._next = 0
        self._otherwise = otherwise
        self.differences: list[str] = []

    def load(self, draws: Sequence[Draw]) -> None:
        """Give out these from now on; what is left of those before is a difference."""
        left = len(self._draws) - self._next
        if left:
            self.differences.append(f"{left} of {len(self._draws)} draws were not made again")
        self._draws, self._next = draws, 0

    def random(self) -> float:
        """Return a float in [0, 1)."""
        drawn = self._draw()
        return drawn if isinstance(drawn, float) else self._another("random()", self._otherwise.random())

    def randrange(self, stop: int, /) -> int:
        """Return an integer in [0, stop)."""
        drawn = self._draw()
        if isinstance(drawn, int) and 0 <= drawn < stop:
            return drawn
        return self._another(f"randrange({stop})", self._otherwise.randrange(stop))

    def randbytes(self, n: int, /) -> bytes:
        """Return `n` random bytes."""
        drawn = self._draw()
        if isinstance(drawn, bytes) and len(drawn) == n:
            return drawn
        return self._another(f"randbytes({n})", self._otherwise.randbytes(n))

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return `k` distinct elements of `population`, in random order."""
        drawn = self._draw()
        size = len(population)
        if isinstance(drawn, tuple) and len(drawn) == k and all(0 <= place < size for place in drawn):
            return [population[place] for place in drawn]
        return self._another(f"sample of {k} of {size}", self._otherwise.sample(population, k))

    def _draw(self) -> Draw | None:
        if self._next == len(self._draws):
            return None
        self._next += 1
        return self._draws[self._next - 1]

    def _another(self, wanted: str, drawn: T) -> T:
        self.differences.append(f"{wanted} was not drawn at this point")
        return drawn


# Writing.


class Keeper(Protocol):
    """Who keeps what is written; none of this raises, since a journal must not be what stops a program."""

    @property
    def is_open(self) -> bool:
        """Whether more is wanted."""

    def write(self, record: bytes | bytearray) -> None:
        """Keep a whole record, or the beginning of the file; the buffer is used again."""

    def give_up(self, why: str) -> None:
        """Note that what follows cannot be written, and want no more."""


class Recording(Generic[I, E]):
    """A core that has each of its steps written before anybody learns what it answered; nothing else is different."""

    __slots__ = ("_buffer", "_core", "_keeper", "_rng")

    def __init__(self, core: Core[I, E], rng: RecordingRng, header: Header, keeper: Keeper) -> None:
        """`rng` is what the core was made with; what it drew for that goes into the header."""
        self._core = core
        self._rng = rng
        self._keeper = keeper
        self._buffer = bytearray()
        keeper.write(beginning(msgspec.structs.replace(header, draws=tuple(rng.taken()))))

    @property
    def deadline(self) -> Instant:
        """When to feed WAKE, or NEVER."""
        return self._core.deadline

    def handle(self, event: I, now: Instant) -> Sequence[E]:
        """Take one input at `now`; return what must now be done, in order. Raises what the core raises."""
        try:
            effects = self._core.handle(event, now)
        except Exception as error:
            self._record(event, now, (), type(error).__name__)
            raise
        self._record(event, now, effects)
        return effects

    def _record(self, event: I, now: Instant, effects: Sequence[E], raised: str = "") -> None:
        draws = self._rng.taken()
        if not self._keeper.is_open:
            return
        buffer = self._buffer
        try:
            # The form of a Step; to make one would encode the input twice.
            step = ("step", now, type(event).__name__, event, draws, digest_of(effects), raised)
            _ENCODER.encode_into(step, buffer, LENGTH_BYTES)
        except Exception as error:  # a text from the system that is not Unicode, for one
            self._keeper.give_up(f"{type(event).__name__} cannot be written: {type(error).__name__}")
            return
        size = len(buffer) - LENGTH_BYTES
        if size > RECORD_BYTES_MAX:
            self._keeper.give_up(f"{type(event).__name__} has {size} bytes; at most {RECORD_BYTES_MAX} are allowed")
            return
        buffer[:LENGTH_BYTES] = size.to_bytes(LENGTH_BYTES, "big")
        self._keeper.write(buffer)


def beginning(header: Header) -> bytes:
    """Return how the file of a journal begins."""
    return MAGIC + _framed(header)


def ending(why: Ending) -> bytes:
    """Return the last record."""
    return _framed(Ended(why))


def _framed(record: Header | Ended) -> bytes:
    encoded = _ENCODER.encode(record)
    return len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded


# Reading.


def records(read: Callable[[int], bytes]) -> Iterator[Header | Fed | Ended]:
    """Yield the header and then the other records of a journal; `read` returns that many bytes, fewer at the end only.

    A journal that was cut off ends where it was, without an Ended. Raises JournalError for what is no journal.
    """
    header = read_header(read)
    yield header
    inputs = _NODE_INPUTS if isinstance(header.made, NodeMade) else _RELAY_INPUTS
    number = 0
    while (encoded := _next_frame(read)) is not None:
        number += 1
        try:
            record = _decoded(encoded, inputs)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise JournalError(f"record {number} is damaged: {error}") from None
        yield record
        if isinstance(record, Ended):
            return


def read_header(read: Callable[[int], bytes]) -> Header:
    """Return how a journal begins; raises JournalError for what is no journal."""
    if not is_journal(read(len(MAGIC))):
        raise JournalError("not a journal of this version: it begins with something else")
    encoded = _next_frame(read)
    if encoded is None:
        raise JournalError("the journal was cut off before it began")
    try:
        header = _HEADER.decode(encoded)
    except (msgspec.DecodeError, ValueError, LocalError, RecursionError) as error:
        raise JournalError(f"its header is damaged: {error}") from None
    return header


def is_journal(beginning: bytes) -> bool:
    """Return whether a file that begins so is a journal."""
    return beginning[: len(MAGIC)] == MAGIC


def _next_frame(read: Callable[[int], bytes]) -> bytes | None:
    length = read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    size = int.from_bytes(length, "big")
    if size > RECORD_BYTES_MAX:
        raise JournalError(f"a record of {size} bytes; at most {RECORD_BYTES_MAX} are allowed")
    encoded = read(size)
    return encoded if len(encoded) == size else None


def _decoded(encoded: bytes, inputs: Mapping[str, msgspec.msgpack.Decoder[Any]]) -> Fed | Ended:
    record = _RECORD.decode(encoded)
    if isinstance(record, Ended):
        return record
    decoder = inputs.get(record.kind)
    if decoder is None:
        raise ValueError(f"{record.kind[:40]!r} is no input of such a core")
    return Fed(record.now, decoder.decode(record.event), record.draws, record.digest, record.raised)


def _plain(value: Any) -> Any:
    """Return what stands for a secret: in a journal they are what everything else depends on."""
    if isinstance(value, Identity):
        return value.seed
    if isinstance(value, Passcode):
        return value.octets.decode()
    raise TypeError(f"{type(value).__name__} has no place in a journal")


def _secret(kind: type[Any], value: Any) -> Any:
    if kind is Identity and isinstance(value, bytes):
        return Identity.from_seed(value)
    if kind is Passcode and isinstance(value, str):
        return Passcode(value)
    raise ValueError(f"there is no {kind.__name__} in it")


def _decoders(union: Any) -> Mapping[str, msgspec.msgpack.Decoder[Any]]:
    return {kind.__name__: msgspec.msgpack.Decoder(kind) for kind in get_args(union)}


_NOTHING: Final[list[Draw]] = []
_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_plain)
_HEADER: Final = msgspec.msgpack.Decoder(Header, dec_hook=_secret)
_RECORD: Final[msgspec.msgpack.Decoder[Step | Ended]] = msgspec.msgpack.Decoder(Step | Ended)
_NODE_INPUTS: Final = _decoders(NodeInput)
_RELAY_INPUTS: Final = _decoders(RelayInput)
