"""Records under AES-GCM: only where both sides said so, and as the Noise specification has it."""

from itertools import product
from random import Random

import pytest
from noise.backends.default import DefaultNoiseBackend
from noise.state import CipherState as ReferenceState

from teale_proto.errors import PeerError
from teale_proto.secure.noise import Handshake, Pattern
from teale_proto.secure.records import Channel, Cipher, CipherState
from tests.proto.secure.pairs import ALICE, ALICE_INSTANCE, BOB, BOB_INSTANCE, shake

CHACHA, AES = Cipher


def ends(pattern: Pattern, *fast_aes: bool) -> tuple[Channel, Channel]:
    """Return both ends of a conversation whose sides like AES or do not."""
    pair = []
    for own, peer, instance, initiator, fast in (
        (ALICE, BOB, ALICE_INSTANCE, True, fast_aes[0]),
        (BOB, ALICE, BOB_INSTANCE, False, fast_aes[1]),
    ):
        rng = Random(initiator)
        if pattern is Pattern.XX:
            pair.append(Handshake.xx(own, initiator=initiator, instance=instance, rng=rng, fast_aes=fast))
        else:
            pair.append(
                Handshake.ik(
                    own,
                    initiator=initiator,
                    peer=peer.node_id,
                    context=b"",
                    instance=instance,
                    rng=rng,
                    fast_aes=fast,
                )
            )
    shake(*pair)
    return pair[0].channel(rekey_after=2), pair[1].channel(rekey_after=2)


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("fast_aes", list(product([False, True], repeat=2)))
def test_aes_is_used_where_both_sides_like_it(pattern: Pattern, fast_aes: tuple[bool, bool]) -> None:
    here, there = ends(pattern, *fast_aes)
    assert here.cipher is there.cipher is (AES if all(fast_aes) else CHACHA)
    for message in (b"one", b"two", b"three", bytes(200_000)):
        *_, opened = [there.open(record) for record in here.seal(message)]
        assert opened == message


@pytest.mark.parametrize(("fast", "tail"), [(False, ""), (True, ", records AESGCM")])
def test_what_protects_a_channel_is_said_truthfully(fast: bool, tail: str) -> None:
    here, _ = ends(Pattern.XX, fast, fast)
    assert here.encryption == "Noise_XX_25519_ChaChaPoly_BLAKE2s" + tail


def test_a_record_of_the_other_cipher_does_not_open() -> None:
    record = CipherState(bytes(32), cipher=AES).encrypt(b"x")
    with pytest.raises(PeerError):
        CipherState(bytes(32), cipher=CHACHA).decrypt(record)


@pytest.mark.parametrize("cipher", list(Cipher))
def test_the_cipher_does_what_another_implementation_does(cipher: Cipher) -> None:
    backend = DefaultNoiseBackend()
    key = bytes(range(32))

    class Protocol:
        """As much of the library's protocol as its cipher state looks at."""

        cipher_class = backend.ciphers[cipher.value]

    reference = ReferenceState(Protocol())
    reference.initialize_key(key)
    ours = CipherState(key, cipher=cipher, rekey_after=3)
    for number in range(9):
        assert ours.encrypt(b"message") == reference.encrypt_with_ad(b"", b"message")
        if number % 3 == 2:
            reference.rekey()


def test_one_altered_ability_is_noticed() -> None:
    alice = Handshake.xx(ALICE, initiator=True, instance=ALICE_INSTANCE, rng=Random(1), fast_aes=True)
    bob = Handshake.xx(BOB, initiator=False, instance=BOB_INSTANCE, rng=Random(2), fast_aes=True)
    bob.read(alice.write())
    answer = bytearray(bob.write())
    # Where the ability is: before the payload's tag.
    answer[-17] ^= 1
    with pytest.raises(PeerError):
        alice.read(bytes(answer))
