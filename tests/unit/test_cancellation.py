"""Loops that outlive errors of the database still end when they are told to."""

import asyncio

import pytest

from mailrail.cancellation import cancel_all, is_cancelled


async def rolled_back_badly() -> None:
    """A statement whose cancellation is lost, as when the rollback after it fails."""
    try:
        await asyncio.sleep(60)
    finally:
        raise TimeoutError


async def test_a_cancellation_that_an_error_took_the_place_of_is_still_known() -> None:
    heard = []

    async def loop() -> None:
        while not is_cancelled():
            try:
                await rolled_back_badly()
            except TimeoutError as error:
                heard.append(error)

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([task])
    assert len(heard) == 1


async def test_a_time_limit_that_ran_out_is_no_cancellation() -> None:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    except TimeoutError:
        assert not is_cancelled()


def test_outside_a_task_nothing_is_cancelled() -> None:
    seen: list[bool] = []
    loop = asyncio.new_event_loop()
    loop.call_soon(lambda: seen.append(is_cancelled()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert seen == [False]


async def test_who_misses_a_cancellation_is_named_and_told_again(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def hard_of_hearing() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            # As Python 3.11's wait_for does with a result that comes at that moment.
            await asyncio.sleep(60)
        finally:
            ended.append("it")

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hard_of_hearing())

    task = asyncio.create_task(group(), name="a role")
    done = asyncio.create_task(asyncio.sleep(0))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await cancel_all([task, done], again_s=0.05, also=lambda: asyncio.all_tasks() - {asyncio.current_task()})
    assert task.cancelled()
    assert ended == ["it"]
    assert "still at work: a role" in caplog.text
