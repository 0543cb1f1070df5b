"""A page of another origin does not get in."""

import pytest

from teale_io.api.guard import host_name, is_loopback
from tests.io.api.scripted import CHAT, JSON, STREAMED, ScriptedService, browsing

HOSTS = """
    localhost             | 200
    localhost:11435       | 200
    LOCALHOST.            | 200
    127.0.0.1:1           | 200
    127.8.9.1             | 200
    [::1]:11435           | 200
    [::1]                 | 200
    teale.lan             | 200
    TEALE.lan:80          | 200
    evil.example          | 403
    evil.example:11435    | 403
    localhost.evil.example| 403
    127.0.0.1.evil.example| 403
    127.0.0.1@evil.example| 403
    192.0.2.1             | 403
    0.0.0.0               | 403
    [::1]evil.example     | 403
    [::1                  | 403
    localhost:evil        | 403
    ::1                   | 403
"""


async def test_only_names_of_our_own_are_answered() -> None:
    async with browsing(ScriptedService(), allowed_hosts=["Teale.LAN"]) as client:
        for line in HOSTS.strip().splitlines():
            host, status = (cell.strip() for cell in line.split("|"))
            response = await client.get("/health", headers={"host": host})
            assert response.status_code == int(status), line
            if response.status_code == 403:
                assert response.json()["error"]["code"] == "host_not_allowed"


ORIGINS = """
    http://127.0.0.1:11435   | 200
    HTTP://127.0.0.1:11435   | 200
    https://chat.example     | 200
    http://127.0.0.1:3000    | 403
    http://localhost:11435   | 403
    http://127.0.0.1         | 403
    http://evil.example      | 403
    https://chat.example.evil| 403
    null                     | 403
"""


async def test_only_our_own_origin_and_allowed_ones_are_answered() -> None:
    async with browsing(ScriptedService(), allowed_origins=["https://chat.example"]) as client:
        for line in ORIGINS.strip().splitlines():
            origin, status = (cell.strip() for cell in line.split("|"))
            response = await client.get("/health", headers={"host": "127.0.0.1:11435", "origin": origin})
            assert response.status_code == int(status), line
            if response.status_code == 403:
                assert response.json()["error"]["code"] == "origin_not_allowed"


SITES = """
    same-origin |                      | 200
    none        |                      | 200
    same-site   |                      | 403
    cross-site  |                      | 403
    nonsense    |                      | 403
    cross-site  | https://chat.example | 200
    cross-site  | https://evil.example | 403
"""


async def test_requests_that_another_site_caused_are_refused() -> None:
    async with browsing(ScriptedService(), allowed_origins=["https://chat.example"]) as client:
        for line in SITES.strip().splitlines():
            site, origin, status = (cell.strip() for cell in line.split("|"))
            headers = {"sec-fetch-site": site} | ({"origin": origin} if origin else {})
            assert (await client.get("/health", headers=headers)).status_code == int(status), line


TYPES = """
    application/json                | 200
    Application/JSON; charset=utf-8 | 200
    text/plain                      | 415
    application/x-www-form-urlencoded | 415
    multipart/form-data; boundary=x | 415
    application/jsonp               | 415
    text/plain;application/json     | 415
"""


async def test_a_body_must_be_declared_as_json() -> None:
    async with browsing(ScriptedService(*STREAMED)) as client:
        for line in TYPES.strip().splitlines():
            kind, status = (cell.strip() for cell in line.split("|"))
            response = await client.post("/v1/chat/completions", content=CHAT, headers={"content-type": kind})
            assert response.status_code == int(status), line
        response = await client.post("/v1/chat/completions", content=CHAT)
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")


async def test_a_form_on_a_page_cannot_stop_the_node() -> None:
    service = ScriptedService()
    async with browsing(service) as client:
        assert (await client.post("/api/shutdown")).status_code == 415
        assert (await client.post("/api/shutdown", headers={**JSON, "origin": "null"})).status_code == 403
        assert (await client.get("/api/shutdown")).status_code == 405
    assert not service.stopped.is_set()


async def test_a_preflight_gets_no_permission() -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    async with browsing(ScriptedService(*STREAMED), allowed_origins=["https://chat.example"]) as client:
        preflight = await client.options("/v1/chat/completions", headers=headers)
        allowed = await client.post(
            "/v1/chat/completions", content=CHAT, headers={**JSON, "origin": "https://chat.example"}
        )
    assert (preflight.status_code, allowed.status_code) == (403, 200)
    assert not any(name.startswith("access-control") for name in (*preflight.headers, *allowed.headers))
    assert allowed.headers["x-content-type-options"] == "nosniff"
    assert allowed.headers["cache-control"] == "no-store"


async def test_one_bad_origin_among_several_is_enough() -> None:
    async with browsing(ScriptedService()) as client:
        own = f"http://{client.base_url.netloc.decode()}"
        good = await client.get("/health", headers=[("origin", own)])
        both = await client.get("/health", headers=[("origin", own), ("origin", "http://evil.example")])
    assert (good.status_code, both.status_code) == (200, 403)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_loopback_names(name: str) -> None:
    assert is_loopback(name)
    assert host_name(f"[{name}]:80") == name


def test_no_host_is_no_name() -> None:
    assert host_name("") == ""
    assert not is_loopback("")
