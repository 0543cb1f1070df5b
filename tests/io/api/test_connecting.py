"""Connecting to a node whose address somebody pasted."""

import json

import pytest

from teale_proto.inputs import Address
from tests.io.api.scripted import JSON, ScriptedService, browsing
from tests.io.status import BOB

PASTED = f"teale://{BOB}?relay=wss://relay.example/ws&addr=192.0.2.1:4433&addr=[2001:db8::1]:4433"


async def test_a_pasted_address_is_dialled() -> None:
    service = ScriptedService()
    async with browsing(service) as client:
        response = await client.post("/api/connect", json={"address": PASTED})
    assert response.status_code == 202
    addresses = ["192.0.2.1:4433", "[2001:db8::1]:4433"]
    assert response.json() == {"node_id": BOB, "relay": "wss://relay.example/ws", "addresses": addresses}
    assert service.connected == [(BOB, (Address("192.0.2.1", 4433), Address("2001:db8::1", 4433)))]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"x"', b"{}", b'{"address":1}', b"\xff", b"[" * 10_000, json.dumps({"address": "x" * 3000}).encode()],
)
async def test_what_is_no_request_is_refused(body: bytes) -> None:
    service = ScriptedService()
    async with browsing(service) as client:
        response = await client.post("/api/connect", content=body, headers=JSON)
    assert (response.status_code, service.connected) == (400, [])
    assert response.json()["error"]["code"] == "invalid_request"


async def test_what_is_no_address_is_refused_in_words() -> None:
    async with browsing(ScriptedService()) as client:
        response = await client.post("/api/connect", json={"address": "https://example.com"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "address")
    assert "begins with teale://" in error["message"]


async def test_what_the_node_does_not_do_is_said() -> None:
    service = ScriptedService()
    service.stopping = True
    async with browsing(service) as client:
        response = await client.post("/api/connect", json={"address": PASTED})
    assert response.status_code == 409
    assert response.json()["error"]["message"] == "the node is stopping"


async def test_pages_of_strangers_connect_nobody() -> None:
    service = ScriptedService()
    async with browsing(service) as client:
        response = await client.post(
            "/api/connect", json={"address": PASTED}, headers={"origin": "https://evil.example"}
        )
        plain = await client.post("/api/connect", content=json.dumps({"address": PASTED}).encode())
        seen = await client.get("/api/connect")
    assert (response.status_code, plain.status_code, seen.status_code, service.connected) == (403, 415, 405, [])
