"""Role `pull`: notifications out of an SQS queue that is subscribed to the topic. It needs no public address, and a queue keeps
for two weeks what nobody takes.

Nothing here is signed for us to check, as it is where SNS posts: the queue's policy lets the topic alone write, and
Amazon's API lets those alone read who have our credentials. The topic is compared all the same, because
one queue may be subscribed to several.

A message is deleted after the commit that stored it, never before. What comes twice is one by its id or where it is applied.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from mailrail import failpoints
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.events import store
from mailrail.events.model import Notification, QueueDepth, storable
from mailrail.ses.clients import client

log = logging.getLogger(__name__)

# SQS gives no more at once.
BATCH_MAX = 10
# One receiver waits for messages; the others come along while it gets full batches.
RECEIVERS = 6
LONG_POLL_S = 20
SHORT_POLL_S = 1
READ_TIMEOUT_S = LONG_POLL_S + 10.0
# How long the end of the process waits for what was just received.
DRAIN_S = 1.0
RETRY_S = 1.0
RETRY_MAX_S = 30.0
DEPTH_INTERVAL_S = 30.0
MESSAGE_ID_MAX_CHARS = 200

SQS_ERRORS = (BotoCoreError, ClientError)
Answer = TypeVar("Answer")
Message = Mapping[str, Any]


class Puller:
    """Reads the queue; any number may, in any number of workers."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._topics = frozenset(settings.sns_topics)
        self._queue = settings.event_queue
        self._url = settings.event_queue
        self._settings = settings
        self._more = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; what was received by then is still stored and deleted."""
        if not self._queue:
            await asyncio.Event().wait()
        await self._insist(self._find)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._insist(self._watch_depth))
            tasks.create_task(self._insist(self._lead))
            for _ in range(RECEIVERS - 1):
                tasks.create_task(self._insist(self._follow))

    async def _insist(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does the work until it ends by itself, again after every failure of queue or database."""
        loop, pause_s = asyncio.get_running_loop(), RETRY_S
        while not is_cancelled():
            begun_at = loop.time()
            try:
                await work()
                return
            except SQS_ERRORS as error:
                log.error("pull: the queue %s cannot be used (%s)", self._queue, error)
            except DATABASE_ERRORS as error:
                # Nothing is received meanwhile: a message that is received too often is put among the dead letters.
                log.warning("pull: the database failed (%s)", type(error).__name__)
            if loop.time() - begun_at > RETRY_MAX_S:
                pause_s = RETRY_S
            await asyncio.sleep(pause_s)
            pause_s = min(RETRY_MAX_S, 2 * pause_s)

    async def _find(self) -> None:
        if "/" not in self._queue:
            found = await in_thread(lambda: self._sqs().get_queue_url(QueueName=self._queue))
            self._url = found["QueueUrl"]

    async def _lead(self) -> None:
        await self._check_database()
        while not is_cancelled():
            if await self._pull(LONG_POLL_S) == BATCH_MAX:
                self._more.set()

    async def _follow(self) -> None:
        await self._check_database()
        while not is_cancelled():
            await self._more.wait()
            if await self._pull(SHORT_POLL_S) < BATCH_MAX:
                self._more.clear()

    async def _check_database(self) -> None:
        async with self._pool.acquire() as conn:
            await store.is_up(conn)

    async def _pull(self, wait_s: int) -> int:
        """One receive and all that follows from it; returns how many messages came."""
        step = asyncio.ensure_future(self._receive_and_settle(wait_s))
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            # A poll that is still empty then is left alone. What it might get comes again when its time is out.
            await asyncio.wait([step], timeout=DRAIN_S)
            step.cancel()
            raise

    async def _receive_and_settle(self, wait_s: int) -> int:
        answer = await in_thread(
            lambda: self._sqs().receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=BATCH_MAX, WaitTimeSeconds=wait_s
            )
        )
        messages: Sequence[Message] = answer.get("Messages", ())
        if messages:
            await self._store(messages)
            failpoints.hit("pull.stored", rows=len(messages))
            await self._delete(messages)
        return len(messages)

    async def _store(self, messages: Sequence[Message]) -> None:
        async with self._pool.acquire() as conn:
            await store.insert_notifications(conn, [read_message(message, self._topics) for message in messages])

    async def _delete(self, messages: Sequence[Message]) -> None:
        entries = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]} for number, message in enumerate(messages)
        ]
        answer = await in_thread(lambda: self._sqs().delete_message_batch(QueueUrl=self._url, Entries=entries))
        if failed := answer.get("Failed"):
            log.warning("pull: %d messages were not deleted (%s) and come again", len(failed), failed[0].get("Code"))

    async def _watch_depth(self) -> None:
        while not is_cancelled():
            depth = await in_thread(lambda: read_depth(self._sqs(), self._url))
            async with self._pool.acquire() as conn:
                await store.save_depth(conn, self._url.rpartition("/")[2], depth)
            await asyncio.sleep(DEPTH_INTERVAL_S)

    def _sqs(self) -> Any:
        return client(self._settings, "sqs", read_timeout_s=READ_TIMEOUT_S)


def read_message(message: Message, topics: frozenset[str]) -> Notification:
    """What a message brings. An SNS envelope of a topic of ours is opened; everything else, raw delivery among it, is taken as it
    is, and parked by the applier if that cannot read it.
    """
    body = str(message.get("Body", ""))
    envelope = read_envelope(body)
    if envelope is not None and envelope.topic_arn in topics:
        return envelope
    return Notification(str(message["MessageId"]), "", storable(body))


def read_envelope(body: str) -> Notification | None:
    """The notification inside an envelope of SNS; None for anything else."""
    try:
        fields = orjson.loads(body)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("Type") != "Notification":
        return None
    message_id, topic_arn, text = fields.get("MessageId"), fields.get("TopicArn"), fields.get("Message")
    if not (isinstance(message_id, str) and isinstance(topic_arn, str) and isinstance(text, str)):
        return None
    if not message_id.isprintable() or not 0 < len(message_id) <= MESSAGE_ID_MAX_CHARS:
        return None
    return Notification(message_id, topic_arn, storable(text))


def read_depth(sqs: Any, url: str) -> QueueDepth:
    """What waits in the queue, what its receivers have, and what lies in its dead-letter queue. Raises SQS_ERRORS."""
    counted = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[*counted, "RedrivePolicy"])["Attributes"]
    waiting, in_flight = (int(told.get(name, 0)) for name in counted)
    if "RedrivePolicy" not in told:
        return QueueDepth(waiting, in_flight, None)
    *_, owner, name = orjson.loads(told["RedrivePolicy"])["deadLetterTargetArn"].split(":")
    dead_url = sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=owner)["QueueUrl"]
    dead = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=counted[:1])["Attributes"]
    return QueueDepth(waiting, in_flight, int(dead.get(counted[0], 0)))


async def in_thread(call: Callable[[], Answer]) -> Answer:
    """As asyncio.to_thread, in a thread for which the end of the process does not wait: a long poll cannot be called off."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer] = loop.create_future()

    def finish(answer: Answer | None, error: Exception | None) -> None:
        if answered.done():
            return
        if error is not None:
            answered.set_exception(error)
        else:
            answered.set_result(answer)  # type: ignore[arg-type]

    def run() -> None:
        answer, failure = None, None
        try:
            answer = call()
        except Exception as error:  # noqa: BLE001  # it is raised where the answer is awaited
            failure = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, answer, failure)

    threading.Thread(target=run, name="sqs", daemon=True).start()
    return await answered
