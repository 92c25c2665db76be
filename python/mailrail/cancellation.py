"""Whether the running task was cancelled, for loops that outlive errors of the database."""

import asyncio


def is_cancelled() -> bool:
    """Whether somebody cancelled the running task, even if it never heard of it.

    A statement that is cancelled still has its transaction rolled back, and an error of that takes the place of CancelledError
    (Python raises the last one). A loop that catches it would go on for ever, and so would whoever waits for its end.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
