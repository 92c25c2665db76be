"""A look at the links of a campaign: whether what they lead to is there. Every socket passes the guard of `outgoing.py`, after each
redirect once more; of an answer only the head is read.
"""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Collection
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from mailrail import outgoing
from mailrail.outgoing import AddressPolicy, GuardedResolver
from mailrail.rehearsals.links import Visit, is_visitable

VISIT_TIMEOUT_S = 5.0
REDIRECTS_MAX = 5
# New addresses in one look; who looks again gets to the next ones.
VISITS_PER_LOOK_MAX = 50
# At the same time: of the whole process, and at one host, which did not ask for our visit.
VISITS_MAX = 64
VISITS_PER_HOST_MAX = 6
# How long a look counts: one that went wrong is soon taken again, because somebody is mending it.
REMEMBERED_S = 300.0
TROUBLE_REMEMBERED_S = 20.0
REMEMBERED_MAX = 10_000
IDLE_S = 4.0

REDIRECTS = (301, 302, 303, 307, 308)
FOR_GOOD = (301, 308)
REFUSED = "its address is not on the public internet"


class LinkChecker:
    """The visitor of a process. It remembers what it saw for some minutes."""

    def __init__(self, policy: AddressPolicy, about_url: str, resolver: AbstractResolver | None = None) -> None:
        self.policy = policy
        self._resolver = resolver or GuardedResolver(policy)
        self._http = outgoing.open_session(
            policy, self._resolver, timeout_s=VISIT_TIMEOUT_S, limit=0, keepalive_timeout=IDLE_S
        )
        self._headers = {
            "User-Agent": f"mailrail link check (+{about_url})",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        self._places = asyncio.Semaphore(VISITS_MAX)
        self._seen: OrderedDict[str, tuple[float, Visit]] = OrderedDict()

    async def close(self) -> None:
        """Cuts off what is under way."""
        await self._http.close()
        await self._resolver.close()

    async def visit(self, urls: Collection[str], budget_s: float) -> dict[str, Visit]:
        """What came of a look at each; those for which there was no time are missing."""
        found = {url: seen for url in urls if (seen := self._remembered(url)) is not None}
        places: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(VISITS_PER_HOST_MAX))
        new = [url for url in dict.fromkeys(urls) if url not in found][:VISITS_PER_LOOK_MAX]
        tasks = {url: asyncio.create_task(self._visit_in_turn(url, places[urlsplit(url).netloc])) for url in new}
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=max(0.0, budget_s))
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        for url, task in tasks.items():
            if not task.cancelled():
                found[url] = task.result()
                self._remember(url, found[url])
        return found

    async def _visit_in_turn(self, url: str, place: asyncio.Semaphore) -> Visit:
        # The time for an answer begins once it is this link's turn, or a busy host would look dead.
        async with place, self._places:
            try:
                async with asyncio.timeout(VISIT_TIMEOUT_S):
                    return await self._visit(url)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                words = outgoing.words_of(error, VISIT_TIMEOUT_S, REFUSED)
                return Visit(error=words, is_private=outgoing.is_refusal(error))

    async def _visit(self, url: str) -> Visit:
        """Follows redirects one by one, each to where a link might lead itself."""
        here, moved_to, is_for_good = url, None, True
        for _ in range(REDIRECTS_MAX + 1):
            status, location = await self._ask(here)
            if status not in REDIRECTS or location is None:
                return Visit(status=status, moved_to=moved_to)
            here = urljoin(here, location)
            if not is_visitable(here, self.policy):
                scheme = urlsplit(here).scheme
                # An app's own scheme is for the reader's device.
                return (
                    Visit(status=status) if scheme not in ("http", "https") else Visit(error=REFUSED, is_private=True)
                )
            is_for_good = is_for_good and status in FOR_GOOD
            moved_to = here if is_for_good else moved_to
        return Visit(error=f"it redirects more than {REDIRECTS_MAX} times")

    async def _ask(self, url: str) -> tuple[int, str | None]:
        """Status and Location. HEAD costs the host least, but not everybody answers it as GET."""
        try:
            status, location = await self._request("HEAD", url)
            if status < 400:
                return status, location
        except aiohttp.ClientConnectorError:
            raise
        except aiohttp.ClientError:
            # Cut off, or answered by what is no answer to HEAD.
            pass
        return await self._request("GET", url)

    async def _request(self, method: str, url: str) -> tuple[int, str | None]:
        async with self._http.request(method, url, headers=self._headers, allow_redirects=False) as response:
            told = response.status, response.headers.get("Location")
            # Whatever the body is, nobody reads it.
            response.close()
        return told

    def _remembered(self, url: str) -> Visit | None:
        until_s, visit = self._seen.get(url, (0.0, None))
        return visit if time.monotonic() < until_s else None

    def _remember(self, url: str, visit: Visit) -> None:
        is_well = visit.status is not None and visit.status < 400
        self._seen.pop(url, None)
        self._seen[url] = (time.monotonic() + (REMEMBERED_S if is_well else TROUBLE_REMEMBERED_S), visit)
        while len(self._seen) > REMEMBERED_MAX:
            self._seen.popitem(last=False)
