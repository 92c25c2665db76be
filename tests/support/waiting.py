"""Waiting for what comes about by itself."""

import asyncio
from collections.abc import Awaitable, Callable

WAIT_S = 20.0


async def until(condition: Callable[[], Awaitable[object]], what: str, wait_s: float = WAIT_S) -> None:
    """Returns once it holds; fails with what was waited for."""
    try:
        async with asyncio.timeout(wait_s):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} did not come about within {wait_s:g} s") from None
