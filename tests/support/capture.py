"""An endpoint that takes every SES call, keeps it as it came over the wire, and answers as SES would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from aiohttp import web


@dataclass(frozen=True, slots=True)
class CapturedCall:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Capture:
    """A running endpoint and what it has seen."""

    url: str = ""
    calls: list[CapturedCall] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Success for every entry."""
        body = await request.read()
        self.calls.append(CapturedCall(request.path, dict(request.headers), body))
        entries = orjson.loads(body).get("BulkEmailEntries")
        if entries is None:
            return web.json_response({"MessageId": f"m-{len(self.calls)}"})
        results = [{"Status": "SUCCESS", "MessageId": f"m-{len(self.calls)}-{n}"} for n in range(len(entries))]
        return web.json_response({"BulkEmailEntryResults": results})


@asynccontextmanager
async def capturing() -> AsyncIterator[Capture]:
    """An endpoint on loopback for the length of a block."""
    capture = Capture()
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/{path:.*}", capture.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    capture.url = f"http://{host}:{port}"
    try:
        yield capture
    finally:
        await runner.cleanup()
