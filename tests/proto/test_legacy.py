"""Ours among the deployed programs: their relay, their nodes, and what is refused of them and why."""

from typing import Any

import msgspec
import pytest

from teale_proto.asking import ASKS_MAX
from teale_proto.contract import SECOND
from teale_proto.door import Join
from teale_proto.effects import (
    CancelGeneration,
    Path,
    RelayState,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRefusal,
)
from teale_proto.errors import LocalError
from teale_proto.inputs import DataReceived, Failure, GenerationChunk, GenerationFailed, GenerationFinished
from teale_proto.link import DEPLOYED_HANDSHAKE, PLAINTEXT_THROUGH_RELAY, RELAYED_MAX, Link
from teale_proto.relay.client_states import DATA_BYTES_MAX
from teale_proto.wire.cluster import (
    DeviceInfo,
    Heartbeat,
    Hello,
    InferenceCancel,
    InferenceChunk,
    InferenceComplete,
    InferenceError,
    InferenceRequest,
    ModelQuery,
)
from teale_proto.wire.codec import Flavour
from teale_proto.wire.deployed import Translator, in_pieces, uuid_for
from teale_proto.wire.framing import frame
from teale_proto.wire.relay import Hardware
from tests.proto.deployed import DeployedNode, DeployedRelay, OpenSession, Tell, unwrapped, wrapped
from tests.proto.world import World, chunk, identity
from tests.proto.worlds import WAN, ask, content

RELAY = "relay.test"
ALLOWED = {**WAN, "allow_plaintext_legacy": True}
FLAVOURS = pytest.mark.parametrize("flavour", [Flavour.DEPLOYED, Flavour.SWIFT])
OURS_AND_THEIRS = pytest.mark.parametrize("relay", ["ours", "theirs"])


def world_of(relay: str = "theirs", **nodes: DeployedNode | dict[str, Any]) -> World:
    """Return a world of started nodes: ours, given by their settings, and deployed ones."""
    world = World()
    if relay == "theirs":
        world.add(RELAY, DeployedRelay())
    else:
        world.add_relay(RELAY, allow_legacy_register=True)
    for number, (name, node) in enumerate(nodes.items(), 1):
        if isinstance(node, DeployedNode):
            world.add(name, node)
            world.lan_of[name] = ""
        else:
            world.add_node(name, number, **node)
    world.start(*nodes)
    world.run_for(60 * SECOND)
    return world


def mac(**settings: Any) -> DeployedNode:
    return DeployedNode(identity(50), **settings)


def refusals(world: World, name: str) -> set[str]:
    return {report.reason for report in world.of(name, ReportRefusal)}


def encryption(world: World, name: str) -> dict[str, str]:
    return {peer.display_name: peer.encryption for peer in world.node(name).peers()}


# Ours at their relay.


def test_our_nodes_find_each_other_at_a_deployed_relay_and_encrypt_through_it() -> None:
    world = world_of(a=WAN, b={**WAN, "models": ("m",)})
    assert world.node("a").status().wan is RelayState.CONNECTED
    assert encryption(world, "a") == {"b": "Noise_IK_25519_ChaChaPoly_BLAKE2s"}
    world.answering.add("b")
    world.feed("a", ask())
    assert content(world, "a") == "hello world"
    assert world.of("a", ReportFinished)[0].path is Path.RELAY


def test_a_deployed_relay_hears_only_what_it_knows_once_it_has_shown_its_dialect() -> None:
    world = world_of(a=WAN, b={**WAN, "models": ("m",)})
    relay = world.cores[RELAY]
    assert isinstance(relay, DeployedRelay)
    # The first word of each is in the documented dialect, whose first key is "type".
    assert relay.kinds.count("type") == 2
    assert set(relay.kinds) == {"type", "register", "discover", "relayOpen", "relayReady", "relayData"}


def test_the_news_of_comings_and_goings_are_tolerated() -> None:
    world = world_of(a=WAN, b={**WAN, "models": ("m",)}, mac=mac())
    world.cut("mac")
    world.run_for(30 * SECOND)
    assert world.node("a").status().wan is RelayState.CONNECTED
    assert not refusals(world, "a")


def test_somebody_else_under_a_peers_name_at_a_relay_that_forwards_anything_gets_nowhere() -> None:
    """The deployed relay lets anybody register any id; the handshake does not."""
    world = world_of(a=WAN, b={**WAN, "models": ("m",)})
    world.cut("b")
    world.vanish("b")
    thief = DeployedNode(identity(2), models=["m"])
    world.add("thief", thief)
    world.start("thief")
    world.run_for(60 * SECOND)
    world.feed("a", ask(timeout=30 * SECOND))
    world.run_for(40 * SECOND)
    assert world.of("a", ReportFailed)
    assert not thief.heard
    assert not any(b"secret" in data for data in thief.raw)


# Their nodes at ours.


@FLAVOURS
def test_a_deployed_node_registers_and_discovers_at_our_relay(flavour: Flavour) -> None:
    node = mac(flavour=flavour)
    world_of("ours", a={**WAN, "models": ("m",)}, mac=node)
    assert node.relay_said[0] == "registerAck"
    assert "discoverResponse" in node.relay_said
    [listing] = node.listed
    assert listing["displayName"] == "a"
    assert listing["wgPublicKey"] == identity(1).static_public.hex()
    assert {"lastSeen", "natType", "endpoints", "publicKey", "capabilities"} <= listing.keys()


# What is refused, and why.


@OURS_AND_THEIRS
@pytest.mark.parametrize(("key", "why"), [(True, DEPLOYED_HANDSHAKE), (False, PLAINTEXT_THROUGH_RELAY)])
def test_a_deployed_node_that_opens_a_session_is_refused_with_the_reason(relay: str, key: bool, why: str) -> None:
    node = mac(key=key)
    world = world_of(relay, a=WAN, mac=node)
    world.feed("mac", OpenSession(world.id("a")))
    assert refusals(world, "a") == {why}
    assert node.relay_said[-1] == "relayClose"
    assert not world.node("a").peers()
    assert not node.raw


@OURS_AND_THEIRS
@pytest.mark.parametrize(("key", "why"), [(True, DEPLOYED_HANDSHAKE), (False, PLAINTEXT_THROUGH_RELAY)])
def test_a_deployed_node_that_answers_our_session_is_refused_with_the_reason(relay: str, key: bool, why: str) -> None:
    node = mac(key=key, models=["m"])
    world = world_of(relay, a=WAN, mac=node)
    assert refusals(world, "a") == {why}
    assert node.relay_said[-1] == "relayClose"
    assert not node.heard
    assert all(data.startswith(b"\0TL1") for data in node.raw), "all that we said was the beginning of a handshake"


def test_a_listed_key_is_never_gone_around_even_where_plaintext_is_allowed() -> None:
    node = mac(models=["m"], key=True)
    world = world_of(a=ALLOWED, mac=node)
    assert refusals(world, "a") == {DEPLOYED_HANDSHAKE}
    world.feed("mac", OpenSession(world.id("a")))
    node.key = False
    world.feed("mac", OpenSession(world.id("a")))
    world.run_for(11 * SECOND)
    assert PLAINTEXT_THROUGH_RELAY in refusals(world, "a")
    assert not world.node("a").peers()


# Plaintext, where it is allowed.


@OURS_AND_THEIRS
@FLAVOURS
def test_where_plaintext_is_allowed_a_deployed_node_answers_ours(relay: str, flavour: Flavour) -> None:
    node = mac(models=["m"], flavour=flavour)
    world = world_of(relay, a=ALLOWED, mac=node)
    assert encryption(world, "a") == {"Mac": "none"}
    assert world.node("a").status().allow_plaintext_legacy
    world.feed("a", ask())
    assert content(world, "a") == "hello world"
    [finished] = world.of("a", ReportFinished)
    assert (finished.server, finished.path, finished.tokens_out) == (node.node_id, Path.RELAY, 2)
    [request] = [payload for kind, payload in node.heard if kind == "inferenceRequest"]
    assert request["requestID"] == uuid_for("r.1")
    assert request["request"]["model"] == "m"


@OURS_AND_THEIRS
@FLAVOURS
def test_where_plaintext_is_allowed_ours_answers_a_deployed_node(relay: str, flavour: Flavour) -> None:
    node = mac(flavour=flavour)
    world = world_of(relay, a={**ALLOWED, "models": ("m",)}, mac=node)
    world.answering.add("a")
    world.feed("mac", OpenSession(world.id("a")))
    assert node.heard[0][0] == "helloAck"
    assert node.heard[0][1]["deviceInfo"]["id"] == uuid_for(world.id("a"))
    request = {"requestID": node.DEVICE, "request": {"model": "m", "messages": []}, "streaming": True}
    world.feed("mac", Tell({"inferenceRequest": request}))
    kinds = [kind for kind, _ in node.heard]
    assert kinds == ["helloAck", "inferenceChunk", "inferenceChunk", "inferenceComplete"]
    assert {payload["requestID"] for _, payload in node.heard[1:]} == {node.DEVICE}
    marks = {b'{"_0":' in data for data in node.raw}
    assert marks == {flavour is Flavour.SWIFT}, "every answer came in the flavour of the question"


def test_plaintext_peers_stay_as_long_as_they_answer_heartbeats_and_are_lost_when_they_do_not() -> None:
    node = mac(models=["m"])
    world = world_of(a=ALLOWED, mac=node)
    world.run_for(300 * SECOND)
    assert encryption(world, "a") == {"Mac": "none"}
    beats = [payload for kind, payload in node.heard if kind == "heartbeat"]
    assert len(beats) >= 20
    assert {beat["deviceID"] for beat in beats} == {uuid_for(world.id("a"))}
    world.vanish("mac")
    world.run_for(46 * SECOND)
    assert not world.node("a").peers()


def test_an_answer_that_was_not_to_be_streamed_comes_as_one_chunk() -> None:
    node = mac()
    world = world_of(a={**ALLOWED, "models": ("m",)}, mac=node)
    world.feed("mac", OpenSession(world.id("a")))
    request = {"requestID": "r", "request": {"model": "m", "messages": []}, "streaming": False}
    world.feed("mac", Tell({"inferenceRequest": request}))
    [generation] = world.generations["a"]
    assert not generation.streaming
    whole = {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello world"}, "finish_reason": "stop"}],
        "usage": {"total_tokens": 5},
    }
    world.feed("a", GenerationChunk(generation.job, msgspec.json.encode(whole)))
    world.feed("a", GenerationFinished(generation.job, 3, 2))
    assert node.heard[1:] == [
        (
            "inferenceChunk",
            {
                "requestID": "r",
                "chunk": {
                    "id": "x",
                    "object": "chat.completion.chunk",
                    "choices": [
                        {"index": 0, "delta": {"role": "assistant", "content": "hello world"}, "finish_reason": "stop"}
                    ],
                    "usage": {"total_tokens": 5},
                },
            },
        ),
        ("inferenceComplete", {"requestID": "r", "tokensIn": 3, "tokensOut": 2}),
    ]


def test_an_error_reaches_a_deployed_node_in_a_code_that_it_can_read() -> None:
    node = mac()
    world = world_of(a={**ALLOWED, "models": ("m",)}, mac=node)
    world.feed("mac", OpenSession(world.id("a")))
    for body in ({"model": "other"}, {}):
        world.feed("mac", Tell({"inferenceRequest": {"requestID": "r", "request": body, "streaming": True}}))
    assert [payload["code"] for kind, payload in node.heard[1:]] == ["model_not_loaded", "internal_error"]


def test_a_deployed_node_that_goes_away_stops_the_work() -> None:
    node = mac()
    world = world_of("ours", a={**ALLOWED, "models": ("m",)}, mac=node)
    world.feed("mac", OpenSession(world.id("a")))
    world.feed("mac", Tell({"inferenceRequest": {"requestID": "r", "request": {"model": "m"}, "streaming": True}}))
    world.cut("mac")
    assert world.of("a", CancelGeneration)


def test_who_has_once_proved_itself_is_not_believed_without_proof() -> None:
    """The relay, or whoever takes a name at a deployed one, cannot talk a node down to plaintext."""
    world = world_of(a={**ALLOWED, "models": ("m",)}, b=ALLOWED)
    assert encryption(world, "b") == {"a": "Noise_IK_25519_ChaChaPoly_BLAKE2s"}
    world.cut("b")
    world.vanish("b")
    thief = DeployedNode(identity(2), models=["m"])
    world.add("thief", thief)
    world.start("thief")
    world.feed("thief", OpenSession(world.id("a")))
    assert PLAINTEXT_THROUGH_RELAY in refusals(world, "a")
    world.run_for(90 * SECOND)
    assert not thief.heard
    assert not world.node("a").peers()


def test_a_name_that_somebody_used_without_proof_goes_to_whoever_proves_it() -> None:
    world = world_of(a={**ALLOWED, "lan_enabled": True}, mac=DeployedNode(identity(2), models=["m"]))
    world.lan_of["a"] = "home"
    assert encryption(world, "a") == {"Mac": "none"}
    world.add_node("b", 2, lan="home")
    world.start("b")
    world.feed("b", world.advertised["a"])
    world.run_for(5 * SECOND)
    assert encryption(world, "a") == {"b": "Noise_XX_25519_ChaChaPoly_BLAKE2s"}
    assert any("proved itself" in report.reason for report in world.of("a", ReportPeer))


def test_a_name_that_cannot_be_one_is_refused() -> None:
    world = world_of(a=ALLOWED)
    ids = {"fromNodeID": "00" * 32, "toNodeID": world.id("a"), "sessionID": "s"}
    world.feed("a", DataReceived(1, wrapped("relayOpen", ids)))
    assert any("not a usable public key" in reason for reason in refusals(world, "a"))


def test_only_paired_nodes_means_no_plaintext_since_a_name_without_proof_is_nothing() -> None:
    node = mac()
    world = world_of(a={**ALLOWED, "wan_join": Join.PAIRED, "trusted_nodes": (node.node_id,)}, mac=node)
    world.feed("mac", OpenSession(world.id("a")))
    assert refusals(world, "a") == {PLAINTEXT_THROUGH_RELAY}


def test_what_is_too_long_for_one_message_ends_the_conversation_and_not_the_node() -> None:
    world = world_of(a=ALLOWED, mac=mac(models=["m"]))
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "x" * RELAYED_MAX}]})
    world.feed("a", ask(body=body, timeout=20 * SECOND))
    world.run_for(1)
    assert any("bytes where" in reason for reason in refusals(world, "a"))
    world.run_for(30 * SECOND)
    [failed] = world.of("a", ReportFailed)
    assert failed.failure in (Failure.PEER_LOST, Failure.UNAVAILABLE, Failure.TIMEOUT)
    assert RELAYED_MAX <= DATA_BYTES_MAX


# On the LAN.


@FLAVOURS
def test_a_deployed_node_on_an_unencrypted_lan_is_answered_in_its_flavour(flavour: Flavour) -> None:
    world = World()
    world.add_node("a", 1, lan="home", lan_encrypted=False, models=("m",))
    world.start("a")
    device = {"id": DeployedNode.DEVICE, "name": "Mac", "hardware": {}}
    world.inject("a", frame(wrapped("hello", {"deviceInfo": device}, flavour)))
    [answer] = world.unheard
    kind, payload = unwrapped(answer[4:])
    assert kind == "helloAck"
    assert payload["deviceInfo"]["id"] == uuid_for(world.id("a"))
    assert (b'{"_0":' in answer) == (flavour is Flavour.SWIFT)


# The pieces.


def test_the_flavour_is_the_one_that_the_other_side_used_first() -> None:
    link = Link.plaintext()
    out: list[bytes] = []
    flavours = [link.flavour]
    for data in (b'{"modelQuery":{"_0":{"modelID":"m"}}}', b'{"type":"modelQuery","payload":{"modelID":"m"}}'):
        assert list(link.receive(len(data).to_bytes(4, "big") + data, out)) == [ModelQuery("m")]
        flavours.append(link.flavour)
    assert flavours == [Flavour.DOCUMENTED, Flavour.SWIFT, Flavour.SWIFT]
    assert Link.relayed_plaintext().flavour is Flavour.DEPLOYED
    with pytest.raises(LocalError, match=f"where {RELAYED_MAX} are allowed"):
        Link.relayed_plaintext().send(ModelQuery("m" * RELAYED_MAX), out)


def test_ids_are_translated_there_and_back() -> None:
    translator = Translator()
    request = InferenceRequest("r.1", msgspec.Raw(b"{}"), True)
    theirs = uuid_for("r.1")
    assert theirs == uuid_for("r.1") != uuid_for("r.2")
    assert theirs[14] == "8"
    assert theirs[19] in "89AB"
    assert translator.outgoing(request) == InferenceRequest(theirs, msgspec.Raw(b"{}"), True)
    piece = msgspec.Raw(chunk("x"))
    assert translator.incoming(InferenceChunk(theirs.lower(), piece)) == InferenceChunk("r.1", piece)
    assert translator.incoming(InferenceComplete(theirs)) == InferenceComplete("r.1")
    assert translator.incoming(InferenceComplete(theirs)) == InferenceComplete(theirs), "it has ended"
    translator.outgoing(request)
    assert translator.outgoing(InferenceCancel("r.1")) == InferenceCancel(theirs)
    assert translator.incoming(InferenceError(theirs, "late")) == InferenceError(theirs, "late")
    assert translator.outgoing(Heartbeat("id", 0.0)) == Heartbeat(uuid_for("id"), 0.0)
    hello = Hello(DeviceInfo("id", "name", Hardware()))
    assert translator.outgoing(hello) == Hello(DeviceInfo(uuid_for("id"), "name", Hardware()))
    assert translator.outgoing(InferenceError("x", "no", "peer_lost")) == InferenceError("x", "no", "internal_error")
    assert translator.outgoing(ModelQuery("m")) == ModelQuery("m")


def test_the_translator_remembers_no_more_requests_than_are_under_way() -> None:
    world = world_of(a=ALLOWED, mac=mac(models=["m"]))
    for number in range(2 * ASKS_MAX):
        world.feed("a", ask(f"{number}"))
    [peer] = list(world.node("a")._peers)
    assert not peer.best.translator._requests


@pytest.mark.parametrize(
    "answer",
    [b'{"message":1}', b'{"choices":[{"message":', b'{"choices":[{"text":"\\"message\\""}]}', chunk("message"), b"[]"],
)
def test_what_is_no_whole_answer_stays_as_it_is(answer: bytes) -> None:
    assert bytes(in_pieces(msgspec.Raw(answer))) == answer


def test_a_failed_generation_is_an_error_for_a_deployed_node_as_well() -> None:
    node = mac()
    world = world_of(a={**ALLOWED, "models": ("m",)}, mac=node)
    world.feed("mac", OpenSession(world.id("a")))
    world.feed("mac", Tell({"inferenceRequest": {"requestID": "r", "request": {"model": "m"}, "streaming": True}}))
    world.feed("a", GenerationFailed(1, Failure.TIMEOUT, "too slow"))
    assert node.heard[-1] == ("inferenceError", {"requestID": "r", "errorMessage": "too slow", "code": "timeout"})
