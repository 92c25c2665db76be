"""Visits to a real server: dead, slow, moved and looping links, and redirects that lead where nobody may go.

127.0.0.2 stands for the public internet here; 127.0.0.1 is the forbidden side, with a listener that counts.
"""

import asyncio
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult

from mailrail import outgoing
from mailrail.outgoing import AddressPolicy
from mailrail.rehearsals import link_checker
from mailrail.rehearsals.link_checker import LinkChecker
from mailrail.rehearsals.links import Visit, judge_visit

PUBLIC, FORBIDDEN = "127.0.0.2", "127.0.0.1"
POLICY = AddressPolicy(networks=(ipaddress.ip_network(f"{PUBLIC}/32"),))


@dataclass
class Site:
    """A server on the public side; `asked` are the requests by method and path, `forbidden` those on the other side."""

    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    forbidden: int = 0
    now: int = 0
    most: int = 0

    def url(self, path: str) -> str:
        """Of a page here."""
        return f"http://{PUBLIC}:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any page; its path says how."""
        self.asked[f"{request.method} {request.path}"] += 1
        self.headers.append(dict(request.headers))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._answer(request)
        finally:
            self.now -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        kind, _, rest = request.path.strip("/").partition("/")
        match kind:
            case "status":
                return web.Response(status=int(rest))
            case "get-only":
                return web.Response(status=200 if request.method == "GET" else 405)
            case "no-head":
                if request.method == "HEAD":
                    assert request.transport is not None
                    request.transport.close()
                return web.Response()
            case "slow":
                await asyncio.sleep(float(rest.partition("/")[0]))
                return web.Response()
            case "endless":
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(b"x" * 65_536)
            case "to":
                status, _, place = rest.partition("/")
                location = request.query.get("url", f"/{place}")
                return web.Response(status=int(status), headers={"Location": location, "Set-Cookie": "a=b"})
            case "loop":
                return web.Response(status=302, headers={"Location": request.path})
        return web.Response()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Listening on both sides, at the same port."""
    found = Site()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.forbidden += 1
        writer.close()

    forbidden = await asyncio.start_server(count, FORBIDDEN, 0)
    found.port = forbidden.sockets[0].getsockname()[1]
    await web.TCPSite(runner, PUBLIC, found.port).start()
    yield found
    forbidden.close()
    await runner.cleanup()


@pytest.fixture
async def checker() -> AsyncIterator[LinkChecker]:
    made = LinkChecker(POLICY, "https://mail.example.com/docs")
    yield made
    await made.close()


async def visit(checker: LinkChecker, url: str) -> Visit:
    return (await checker.visit([url], 10))[url]


async def test_what_is_there_is_asked_once_and_remembered(site: Site, checker: LinkChecker) -> None:
    for _ in range(2):
        assert await visit(checker, site.url("/page?a=b")) == Visit(200)
    assert site.asked == {"HEAD /page": 1}
    assert site.headers[0]["User-Agent"] == "mailrail link check (+https://mail.example.com/docs)"
    assert "Cookie" not in site.headers[0]


@pytest.mark.parametrize(
    ("path", "visit_", "requests"),
    [
        ("/status/404", Visit(404), ["HEAD", "GET"]),
        ("/status/503", Visit(503), ["HEAD", "GET"]),
        ("/get-only", Visit(200), ["HEAD", "GET"]),
        ("/no-head", Visit(200), ["HEAD", "GET"]),
    ],
)
async def test_who_does_not_answer_head_is_asked_by_get(
    site: Site, checker: LinkChecker, path: str, visit_: Visit, requests: list[str]
) -> None:
    assert await visit(checker, site.url(path)) == visit_
    assert set(site.asked) == {f"{method} {path}" for method in requests}


async def test_redirects_are_followed_and_those_for_good_are_told(site: Site, checker: LinkChecker) -> None:
    assert await visit(checker, site.url("/to/302/page")) == Visit(200)
    assert await visit(checker, site.url("/to/301/page")) == Visit(200, moved_to=site.url("/page"))
    assert await visit(checker, site.url("/to/308/to/302/page")) == Visit(200, moved_to=site.url("/to/302/page"))
    assert await visit(checker, site.url("/to/302/status/404")) == Visit(404)
    assert await visit(checker, site.url("/to/302/x?url=myapp://open")) == Visit(302)
    assert (await visit(checker, site.url(f"/to/302/x?url=http://{PUBLIC}:22/"))).error is not None
    assert all("Cookie" not in headers for headers in site.headers)


async def test_a_loop_ends(site: Site, checker: LinkChecker) -> None:
    assert await visit(checker, site.url("/loop")) == Visit(error="it redirects more than 5 times")
    assert site.asked["HEAD /loop"] == 6


async def test_no_redirect_leads_to_the_forbidden_side(
    site: Site, checker: LinkChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=FORBIDDEN, port=port, family=socket.AF_INET, proto=0, flags=0),
        ]

    monkeypatch.setattr(outgoing, "lookup", lookup)
    places = [
        f"http://{host}:{site.port}/" for host in (FORBIDDEN, "inner.example", "localhost", "2130706433", "[::1]")
    ]
    for place in [*places, "https://169.254.169.254/latest", "http://10.0.0.1/", f"//{FORBIDDEN}:{site.port}/"]:
        for code in (301, 302, 307):
            seen = await visit(checker, site.url(f"/to/{code}/x?url={place}"))
            found = judge_visit("x", seen)
            assert seen.is_private, (place, seen)
            assert found is not None
            assert found.trouble == "private"
    assert (await visit(checker, f"http://inner.example:{site.port}/")).is_private
    assert site.forbidden == 0


async def test_a_dead_host_is_told_in_words(site: Site, checker: LinkChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    free = socket.socket()
    free.bind((PUBLIC, 0))
    refused = await visit(checker, f"http://{PUBLIC}:{free.getsockname()[1]}/")
    free.close()
    assert refused == Visit(error="the connection was refused")
    assert (await visit(checker, f"https://{PUBLIC}:{site.port}/")).error == "no TLS connection could be made"
    monkeypatch.setattr(link_checker, "VISIT_TIMEOUT_S", 0.2)
    assert await visit(checker, site.url("/slow/5")) == Visit(error="no answer within 0.2 s")


async def test_a_look_ends_in_time_and_tells_what_it_did_not_see(site: Site, checker: LinkChecker) -> None:
    urls = [site.url("/slow/0")] + [site.url(f"/slow/30/{n}") for n in range(40)]
    begun_s = time.monotonic()
    seen = await checker.visit(urls, 0.5)
    assert time.monotonic() - begun_s < 3
    assert set(seen) == {urls[0]}
    assert site.most <= link_checker.VISITS_PER_HOST_MAX


async def test_a_busy_host_does_not_look_dead(
    site: Site, checker: LinkChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_checker, "VISIT_TIMEOUT_S", 1.0)
    urls = [site.url(f"/slow/0.2?n={n}") for n in range(50)]
    seen = await checker.visit(urls, 20)
    assert [seen[url].status for url in urls] == [200] * 50
    assert site.most == link_checker.VISITS_PER_HOST_MAX


async def test_of_an_endless_answer_nothing_is_read(site: Site, checker: LinkChecker) -> None:
    assert (await visit(checker, site.url("/endless"))).status == 200


async def test_trouble_is_forgotten_soon(site: Site, checker: LinkChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_checker, "TROUBLE_REMEMBERED_S", 0.0)
    for _ in range(2):
        await visit(checker, site.url("/status/404"))
    assert site.asked["GET /status/404"] == 2
    monkeypatch.setattr(link_checker, "REMEMBERED_MAX", 1)
    for path in ("/a", "/b", "/a"):
        await visit(checker, site.url(path))
    assert site.asked["HEAD /a"] == 2


async def test_who_looks_again_gets_to_the_next_links(
    site: Site, checker: LinkChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_checker, "VISITS_PER_LOOK_MAX", 2)
    urls = [site.url(f"/{n}") for n in range(5)]
    assert [len(await checker.visit(urls, 10)) for _ in range(3)] == [2, 4, 5]
    assert set(site.asked.values()) == {1}
