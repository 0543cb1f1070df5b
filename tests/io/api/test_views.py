"""A view into the node, under the names of its values."""

import trio

from teale_proto.inputs import Failure
from tests.io.api.scripted import JSON, SOON, ScriptedService, browsing
from tests.io.status import ALICE, BOB, CAROL


async def test_health_tells_the_number_of_peers() -> None:
    async with browsing(ScriptedService()) as client:
        assert (await client.get("/health")).json() == {"ok": True, "peers": 1}


async def test_status_has_the_names_of_the_fields_and_the_values_of_the_enums() -> None:
    async with browsing(ScriptedService()) as client:
        status = (await client.get("/api/status")).json()
    assert status["node_id"] == ALICE
    assert status["wan"] == "connected"
    assert status["wan_relay_url"] == "ws://relay.example/ws"
    assert status["hardware"]["total_ram_gb"] == 16.0
    assert status["loaded_models"] == ["tiny"]
    assert status["version"] == "1.2.3"
    assert status["problems"] == ["big.gguf is not a GGUF file"]


async def test_peers_are_connected_or_listed() -> None:
    async with browsing(ScriptedService()) as client:
        peers = (await client.get("/api/peers")).json()
    assert [(peer["node_id"], peer["state"], peer["path"]) for peer in peers["connected"]] == [
        (BOB, "connected", "lan"),
        (CAROL, "lost", "lan"),
    ]
    assert peers["listed"][0]["hardware"]["memory_bandwidth_gbs"] == 0.0
    assert peers["listed"][0]["loaded_models"] == ["far"]


async def test_a_route_is_explained() -> None:
    async with browsing(ScriptedService()) as client:
        chat = (await client.get("/api/route", params={"model": "org/big"})).json()
        text = (await client.get("/api/route", params={"model": "m", "task": "embeddings"})).json()
    assert (chat["model"], chat["winner"], chat["reason"]) == ("org/big", BOB, "bob has the model")
    assert chat["candidates"][0]["reason"] == "chat/completions"
    assert text["candidates"][0]["reason"] == "embeddings"


async def test_a_route_needs_a_model_and_a_known_task() -> None:
    async with browsing(ScriptedService()) as client:
        nameless = await client.get("/api/route")
        unknown = await client.get("/api/route", params={"model": "m", "task": "images"})
    assert (nameless.status_code, nameless.json()["error"]["param"]) == (400, "model")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "task")
    assert "embeddings" in unknown.json()["error"]["message"]


async def test_shutdown_answers_and_stops_the_node() -> None:
    service = ScriptedService()
    async with browsing(service) as client:
        response = await client.post("/api/shutdown", headers=JSON)
        assert (response.status_code, response.json()) == (200, {"ok": True})
        with trio.fail_after(SOON):
            await service.stopped.wait()


def test_every_failure_of_the_core_is_in_the_table() -> None:
    from teale_io.api.errors import _FAILURES

    assert set(_FAILURES) == set(Failure)
