"""Cancelling that reaches whom it is meant for: loops that outlive errors of the database, and tasks that miss it."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

log = logging.getLogger(__name__)

AGAIN_S = 5.0


def is_cancelled() -> bool:
    """Whether somebody cancelled the running task, even if it never heard of it.

    A statement that is cancelled still has its transaction rolled back, and an error of that takes the place of CancelledError
    (Python raises the last one). A loop that catches it would go on for ever, and so would whoever waits for its end.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def cancel_all(
    tasks: Collection[asyncio.Task[Any]],
    again_s: float = AGAIN_S,
    also: Callable[[], Iterable[asyncio.Task[Any]]] = tuple,
) -> None:
    """Returns once all of them have ended; their results and errors stay with them.

    Who has not ended after `again_s` is named in the log and cancelled once more, and so is what `also` names: a task may miss it
    (Python 3.11's `wait_for` gives a result that came at that moment instead), and a TaskGroup passes it on only once.
    """
    for task in tasks:
        task.cancel()
    while tasks:
        _, left = await asyncio.wait(tasks, timeout=again_s)
        if not left:
            return
        log.warning("ending: still at work: %s", ", ".join(sorted(task.get_name() for task in left)))
        for task in (*left, *also()):
            task.cancel()
