"""Two sides of a handshake and of a channel, for the tests beside this."""

from random import Random
from typing import Final

from teale_proto.inputs import NodeId
from teale_proto.secure.identity import Identity
from teale_proto.secure.noise import Channel, Handshake, Pattern
from teale_proto.secure.records import MESSAGE_MAX, REKEY_AFTER

ALICE: Final = Identity.from_seed(b"alice".ljust(32, b"."))
BOB: Final = Identity.from_seed(b"bob".ljust(32, b"."))
CAROL: Final = Identity.from_seed(b"carol".ljust(32, b"."))

ALICE_INSTANCE: Final = b"alice-01"
BOB_INSTANCE: Final = b"bob-0001"


def alice_and_bob(pattern: Pattern, *, seed: int = 1) -> tuple[Handshake, Handshake]:
    """Return the initiator, Alice, and the responder, Bob, before the first message."""
    if pattern is Pattern.XX:
        return xx(ALICE, initiator=True, seed=seed), xx(BOB, initiator=False, seed=seed)
    return ik(ALICE, BOB.node_id, initiator=True, seed=seed), ik(BOB, ALICE.node_id, initiator=False, seed=seed)


def xx(identity: Identity, *, initiator: bool, seed: int = 1) -> Handshake:
    """Return one side of an XX handshake."""
    instance = ALICE_INSTANCE if initiator else BOB_INSTANCE
    return Handshake.xx(identity, initiator=initiator, instance=instance, rng=Random(2 * seed + initiator))


def ik(identity: Identity, peer: NodeId, *, initiator: bool, context: bytes = b"session 7", seed: int = 1) -> Handshake:
    """Return one side of an IK handshake."""
    return Handshake.ik(
        identity,
        initiator=initiator,
        peer=peer,
        context=context,
        instance=ALICE_INSTANCE if initiator else BOB_INSTANCE,
        rng=Random(2 * seed + initiator),
    )


def shake(initiator: Handshake, responder: Handshake) -> list[bytes]:
    """Carry messages between the two until both are finished; return the messages."""
    messages = []
    writer, reader = initiator, responder
    while not (initiator.finished and responder.finished):
        messages.append(writer.write())
        reader.read(messages[-1])
        writer, reader = reader, writer
    return messages


def channels(
    pattern: Pattern = Pattern.XX, *, message_max: int = MESSAGE_MAX, rekey_after: int = REKEY_AFTER
) -> tuple[Channel, Channel]:
    """Return the two ends of a finished handshake."""
    alice, bob = alice_and_bob(pattern)
    shake(alice, bob)
    return (
        alice.channel(message_max=message_max, rekey_after=rekey_after),
        bob.channel(message_max=message_max, rekey_after=rekey_after),
    )
