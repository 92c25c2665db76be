"""The HTTP server: limits, errors of every kind in one form, readiness and the way down."""

import asyncio
import logging
import os
import signal
import socket
from typing import Any

import aiohttp
import orjson
import pytest

from mailrail import app as api_app
from mailrail.app import create_app, listen, running
from mailrail.db.pool import Pool
from mailrail.errors import DatabaseError, StartError
from mailrail.logs import Redactor, TextFormatter
from mailrail.ops import routes as ops
from mailrail.web.answers import answer
from mailrail.web.context import Request
from mailrail.web.openapi import operation
from tests.support.api import Answer, Api, Tenant, assert_error_form
from tests.support.postgres import Database


async def test_every_answer_carries_a_request_id_of_its_own(api: Api, tenant: Tenant) -> None:
    answers = [
        await tenant.get("/api/v1/stats"),
        await api.call("GET", "/healthz", headers={"X-Request-Id": "mine"}),
        await api.call("GET", "/nowhere"),
        await api.call("GET", "/c/x/1"),
        await api.call("OPTIONS", "/api/v1/stats"),
    ]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == len(answers)
    assert all(text.startswith("req_") for text in ids)


async def test_what_the_server_refuses_has_the_same_form(api: Api, tenant: Tenant) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "route_not_found"),
        ("GET", "/api/v1/contacts/x", 404, "contact_not_found"),
        ("DELETE", "/api/v1/stats", 405, "method_not_allowed"),
    ):
        answer = await api.call(method, path, tenant.key)
        assert answer.status == status, (method, path, answer)
        assert_error_form(answer)
        assert answer.code == code
    assert (await api.call("DELETE", "/api/v1/stats")).headers["allow"] == "GET"


async def test_a_bug_of_ours_is_told_without_what_the_customer_sent(
    api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(TextFormatter(Redactor()))
    secret = "@".join(("secret", "example.com"))

    async def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError(secret)

    monkeypatch.setattr("mailrail.contacts.store.count_contacts", fail)
    answer = await tenant.get("/api/v1/stats")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert_error_form(answer)
    assert answer.headers["x-request-id"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert secret not in caplog.text + str(answer.body)


async def test_the_errors_page_has_every_code(api: Api) -> None:
    page = await api.call("GET", "/docs/errors")
    for code in ("contact_exists", "sender_not_verified", "template_invalid", "body_too_large"):
        assert f'id="{code}"'.encode() in page.body


# A line as somebody sends it, and the status and code that it gets.
ODD_REQUESTS = (
    ("NONSENSE", 400, "request_unreadable"),
    # What is asked of a proxy.
    ("CONNECT example.com:443 HTTP/1.1", 400, "request_unreadable"),
    ("CONNECT [::1]:443 HTTP/1.1", 400, "request_unreadable"),
    ("CONNECT /healthz HTTP/1.1", 405, "method_not_allowed"),
    ("GET http://elsewhere.example/nowhere HTTP/1.1", 404, "route_not_found"),
    ("GET http://elsewhere.example HTTP/1.1", 404, "route_not_found"),
    ("GET http:// HTTP/1.1", 400, "request_unreadable"),
    ("GET mailto:ann@example.com HTTP/1.1", 400, "request_unreadable"),
    # Of the server itself.
    ("OPTIONS * HTTP/1.1", 404, "route_not_found"),
    ("OPTIONS /healthz HTTP/1.1", 405, "method_not_allowed"),
    # No target, and none that can be read.
    ("GET  HTTP/1.1", 400, "request_unreadable"),
    ("GET HTTP/1.1", 400, "request_unreadable"),
    ("GET healthz HTTP/1.1", 400, "request_unreadable"),
    ("GET ? HTTP/1.1", 400, "request_unreadable"),
    ("GET /\0 HTTP/1.1", 400, "request_unreadable"),
    ("GET /ä HTTP/1.1", 400, "request_unreadable"),
    ("GET /%ff HTTP/1.1", 404, "route_not_found"),
    # Methods that do not exist, or not here.
    ("BREW /healthz HTTP/1.1", 405, "method_not_allowed"),
    ("get /healthz HTTP/1.1", 405, "method_not_allowed"),
    (" /healthz HTTP/1.1", 405, "method_not_allowed"),
    ("TRACE /healthz HTTP/1.1", 405, "method_not_allowed"),
    ("BREW /nowhere HTTP/1.1", 404, "route_not_found"),
    ("PRI * HTTP/2.0", 400, "request_unreadable"),
)


async def answered(api: Api, line: str) -> Answer:
    """What comes back for a request of this one line, until the server hangs up."""
    host, port = api.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{line}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *headers = head.decode().split("\r\n")
    return Answer(
        int(status.split(" ")[1]),
        orjson.loads(body),
        {name.lower(): value for name, value in (one.split(": ", 1) for one in headers)},
    )


async def test_an_odd_request_gets_a_clean_answer(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    for line, status, code in ODD_REQUESTS:
        answer = await answered(api, line)
        assert (answer.status, answer.code) == (status, code), line
        assert_error_form(answer)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_address_with_its_host_is_answered(api: Api) -> None:
    # RFC 9112, 3.2.2: a server must take it, though only proxies are asked so.
    assert (await answered(api, "GET http://elsewhere.example/healthz HTTP/1.1")).body == {"status": "ok"}


async def test_readiness_follows_the_database_and_the_drain(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await api.call("GET", "/readyz")).status == 200
    assert (await api.call("GET", "/healthz")).status == 200
    monkeypatch.setattr(api.app.ctx, "draining", True)
    assert (await api.call("GET", "/readyz")).status == 503
    assert (await api.call("GET", "/healthz")).status == 200


async def test_a_broken_database_connection_is_a_503(api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: Any, **options: Any) -> None:
        raise ConnectionResetError

    monkeypatch.setattr("mailrail.contacts.store.count_contacts", fail)
    answer = await tenant.get("/api/v1/stats")
    assert (answer.status, answer.code) == (503, "service_unavailable")
    assert answer.headers["retry-after"]


async def test_a_request_under_way_is_finished_on_the_way_down(
    database: Database, worker_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    @operation(answers={200: ops.StateAnswer})
    async def slow(request: Request) -> Any:
        entered.set()
        await leave.wait()
        return answer({"done": True})

    monkeypatch.setattr(ops, "health", slow)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with aiohttp.ClientSession() as session:
        async with running(create_app(database.settings()), listener):
            # An idle connection must not hold up the end.
            await (await session.get(f"http://127.0.0.1:{port}/readyz")).read()
            request = asyncio.create_task(session.get(f"http://127.0.0.1:{port}/healthz"))
            await entered.wait()
            asyncio.get_running_loop().call_later(0.2, leave.set)
        finished = await request
        assert await finished.json() == {"done": True}
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{port}/healthz")


async def test_serve_ends_by_sigterm(database: Database) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ready = asyncio.Event()
    serving = asyncio.create_task(api_app.serve(database.settings(port=port), ready.set))
    await asyncio.wait_for(ready.wait(), 10)
    async with aiohttp.ClientSession() as session:
        assert (await session.get(f"http://127.0.0.1:{port}/readyz")).status == 200
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 10)


async def test_a_port_in_use_stops_the_start_with_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match="cannot listen on 127.0.0.1 port"):
            listen("127.0.0.1", taken.getsockname()[1])


async def test_a_database_that_is_not_there_stops_the_start(database: Database) -> None:
    settings = database.settings(api_database_url="postgresql://nobody:x@127.0.0.1:1/none")
    with pytest.raises(DatabaseError, match="cannot connect to PostgreSQL"):
        async with running(create_app(settings), listen("127.0.0.1", 0)):
            pass
