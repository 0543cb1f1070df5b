"""The three envelopes at a relay, byte for byte: each side hears the one that it spoke first."""

from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import Answer, ConnectionInfo, Discover, RelayData, RelayOpen, RelayReady
from tests.proto.relay.relays import ALICE, BOB, CAROL, LEGACY, RawNode, Relay

INFO = ConnectionInfo("203.0.113.9", 5000, "10.0.0.9", 5001, "fullCone", wg_public_key="ab")
A, B = ALICE.node_id, BOB.node_id


def test_errors_before_anything_was_understood_are_documented() -> None:
    node = RawNode(Relay(), ALICE)
    node.say_bytes(b"?")
    assert node.raw == [
        b'{"type":"error","payload":{"code":"invalid_json","message":"malformed message: not well-formed JSON"}}'
    ]


def test_the_first_message_that_is_understood_decides_even_if_its_kind_is_unknown() -> None:
    node = RawNode(Relay(), ALICE)
    node.say_bytes(b'{"teleport":{"_0":{}}}')
    node.say_bytes(b'{"type":"teleport"}')
    refusal = b'{"_0":{"code":"unsupported_message","message":"this relay does not know that kind of message"}}'
    assert node.raw == [b'{"error":' + refusal + b"}"] * 2


def test_a_deployed_node_registers_discovers_and_talks_in_its_own_words() -> None:
    relay = Relay(LEGACY)
    relay.node(ALICE, display_name="Alice", wg_public_key=ALICE.static_public.hex())
    bob = RawNode(relay, BOB, Flavour.DEPLOYED)
    bob.say_bytes(
        b'{"register":{"nodeID":"%s","publicKey":"%s","displayName":"Mac","capabilities":{"hardware":{"chipFamily":"m3",'
        b'"chipName":"Apple M3","totalRAMGB":16,"gpuCoreCount":10,"memoryBandwidthGBs":100,"tier":2},"loadedModels":[],'
        b'"maxModelSizeGB":12,"isAvailable":true},"signature":"%s"}}'
        % (B.encode(), B.encode(), BOB.sign(B.encode()).hex().encode())
    )
    assert bob.raw[0] == b'{"registerAck":{"nodeID":"%s","registeredAt":721692800.0,"ttlSeconds":300}}' % B.encode()
    assert bob.raw[1].startswith(b'{"registerChallenge":{"challenge":"')
    bob.say_bytes(b'{"discover":{"requestingNodeID":"%s","filter":{"minTier":2}}}' % B.encode())
    assert bob.raw[2] == (
        b'{"discoverResponse":{"peers":[{"nodeID":"%s","publicKey":"%s","displayName":"Alice","capabilities":{"hardware":'
        b'{"chipFamily":"","chipName":"","totalRAMGB":16.0,"gpuCoreCount":0,"memoryBandwidthGBs":0.0,"tier":2},'
        b'"loadedModels":["tiny"],"maxModelSizeGB":0.0,"isAvailable":true},"lastSeen":721692800.0,"wgPublicKey":"%s",'
        b'"natType":"unknown","endpoints":[]}]}}' % (A.encode(), A.encode(), ALICE.static_public.hex().encode())
    )


def test_what_is_passed_on_is_translated() -> None:
    relay = Relay()
    documented, deployed = relay.node(ALICE), relay.node(BOB, Flavour.DEPLOYED)
    swift = relay.node(CAROL, Flavour.SWIFT)
    ids = b'{"fromNodeID":"%s","toNodeID":"%s","sessionID":"s"' % (A.encode(), B.encode())
    documented.say(RelayOpen(A, B, "s"))
    assert deployed.raw[-1] == b'{"relayOpen":' + ids + b"}}"
    deployed.say_bytes(b'{"relayReady":{"fromNodeID":"%s","toNodeID":"%s","sessionID":"s"}}' % (B.encode(), A.encode()))
    assert documented.last == RelayReady(B, A, "s")
    assert documented.raw[-1].startswith(b'{"type":"relayReady","payload":{"fromNodeID":')
    documented.say(RelayData(A, B, "s", b"\0\xff"))
    assert deployed.raw[-1] == b'{"relayData":' + ids + b',"data":"AP8="}}'
    deployed.say(Answer(B, CAROL.node_id, "s", INFO, "cd"))
    assert swift.raw[-1].startswith(b'{"answer":{"_0":{"fromNodeID":"')
    swift.say(Answer(CAROL.node_id, A, "s", INFO, "cd"))
    assert documented.raw[-1] == (
        b'{"type":"signal","payload":{"answer":{"fromNodeID":"%s","toNodeID":"%s","sessionID":"s","connectionInfo":'
        b'{"publicIP":"203.0.113.9","publicPort":5000,"localIP":"10.0.0.9","localPort":5001,"natType":"fullCone",'
        b'"wgPublicKey":"ab"},"signature":"cd"}}}' % (CAROL.node_id.encode(), A.encode())
    )


def test_a_repeated_key_is_not_passed_on() -> None:
    """What two readers could read differently must not pass a relay that checked only one reading."""
    relay = Relay()
    alice, bob = relay.node(ALICE), relay.node(BOB)
    alice.say_bytes(
        b'{"type":"relayOpen","payload":{"fromNodeID":"%s","fromNodeID":"%s","toNodeID":"%s","sessionID":"s","x":1}}'
        % (CAROL.node_id.encode(), A.encode(), B.encode())
    )
    assert bob.raw[-1].count(b"fromNodeID") == 1
    assert bob.last == RelayOpen(A, B, "s")


def test_a_later_message_in_another_envelope_is_read_and_changes_nothing() -> None:
    relay = Relay()
    alice = relay.node(ALICE, Flavour.SWIFT)
    alice.flavour = Flavour.DOCUMENTED
    alice.say(Discover(A))
    assert alice.raw[-1] == b'{"discoverResponse":{"_0":{"peers":[]}}}'
