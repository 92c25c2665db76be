"""`mailrail doctor --aws --probe`: asks Amazon SES what its documents leave open, by a few mails to its mailbox simulator, and
stores the answers, which steer how campaigns are sent.

Ten checks in order. What cannot be asked safely, and what was not seen, stays unknown with the reason: nothing is guessed.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from mailrail._core import Codec
from mailrail.aws import probe_checks
from mailrail.aws.probe_mail import Post, ProbeFailed
from mailrail.config import Settings, require_database
from mailrail.db.pool import DATABASE_ERRORS, Pool, connect, open_pool
from mailrail.domains import store as domains
from mailrail.errors import DatabaseError
from mailrail.ses import store
from mailrail.ses.answers import QUESTIONS, Answer, Verdict
from mailrail.ses.limiter import Limiter, name_of

# The limiter is told its figures within this time, or not at all.
FIGURES_S = 10.0
COST = (
    f"probe  sends at most {probe_checks.MAILS_MAX} mails to Amazon's mailbox simulator: as many tokens of the rate, nothing of the "
    "daily quota or the reputation, and less than one US cent. It takes some minutes."
)
NO_SENDER = "no domain of this installation is verified, so nobody could be the sender; POST /api/v1/domains first"


async def run(settings: Settings) -> int:
    """Prints each answer as it comes; status 1 where nothing could be asked at all."""
    require_database(settings, "worker_database_url")
    print(COST, flush=True)
    asked = 0
    async for answer in ask(settings):
        print(line(answer), flush=True)
        asked += answer.verdict is not Verdict.UNKNOWN
    if not asked:
        print("probe  found out nothing; `mailrail doctor --aws` says what is missing", file=sys.stderr)
    return 0 if asked else 1


async def show(settings: Settings) -> int:
    """Prints what earlier probes found out; nothing is wrong with any of it. Silent where the database cannot tell, which the
    checks before this one say.
    """
    if not settings.worker_database_url:
        return 0
    try:
        answers = await stored(settings)
    except (DatabaseError, *DATABASE_ERRORS):
        return 0
    for answer in answers:
        print(line(answer))
    if not answers:
        print("probe  this account was never asked; `mailrail doctor --aws --probe` asks it by a few mails")
    return 0


async def ask(settings: Settings, patience: probe_checks.Patience = probe_checks.PATIENCE) -> AsyncIterator[Answer]:
    """The answers in the order of the checks, each stored before it is told. Raises DatabaseError."""
    pool = await open_pool(settings.worker_database_url, application_name="mailrail probe")
    try:
        limiter = Limiter(pool, settings)
        following = asyncio.create_task(limiter.follow())
        # The one check that takes long and costs nothing runs beside the others.
        idling = asyncio.create_task(probe_checks.check_connection(settings, patience))
        try:
            post = await _open_post(pool, settings, limiter, patience)
            for check in probe_checks.CHECKS:
                found = await idling if check is probe_checks.check_connection else await _answers(check, post)
                for answer in found:
                    async with pool.acquire() as conn:
                        await store.write_answer(conn, name_of(settings), answer)
                    yield answer
        finally:
            following.cancel()
            idling.cancel()
    finally:
        await pool.close()


async def stored(settings: Settings) -> list[Answer]:
    """What earlier probes found out, in the order of the checks."""
    conn = await connect(settings.worker_database_url, application_name="mailrail doctor")
    try:
        answers = await store.read_answers(conn, name_of(settings))
    finally:
        await conn.close()
    return [answers[question] for question in QUESTIONS if question in answers]


def line(answer: Answer, now: datetime | None = None) -> str:
    """An answer as it is printed; of one that was stored, its age."""
    number, words = QUESTIONS[answer.question]
    age = "" if answer.asked_at is None else f" ({_age(answer.asked_at, now or datetime.now(UTC))})"
    return f"{answer.verdict:<7}  {number:>2}  {words}: {answer.detail}{age}"


def _age(asked_at: datetime, now: datetime) -> str:
    days = (now - asked_at).days
    return "asked today" if days < 1 else f"asked {days} day{'s' if days > 1 else ''} ago"


async def _open_post(pool: Pool, settings: Settings, limiter: Limiter, patience: probe_checks.Patience) -> Post:
    async with pool.acquire() as conn:
        domain = await domains.any_verified_domain(conn)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIGURES_S):
            while not (await limiter.look()).polled:
                await asyncio.sleep(0.1)
    sender = f"mailrail-probe@{domain}" if domain else None
    return Post(pool, settings, limiter, Codec(settings.secret_key.encode()), sender, patience.events_s)


async def _answers(check: probe_checks.Check, post: Post) -> list[Answer]:
    """What a check finds; where it could not be made, its questions with the reason."""
    try:
        if post.sender is None and check is not probe_checks.check_tenant:
            raise ProbeFailed(NO_SENDER)
        return await check(post)
    except ProbeFailed as error:
        return probe_checks.unknown(check, str(error))
    except DATABASE_ERRORS as error:
        return probe_checks.unknown(check, f"the database failed ({type(error).__name__})")
