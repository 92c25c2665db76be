"""`mailrail doctor`: what a start needs, one line each, with the remedy."""

from collections.abc import AsyncIterator, Iterator, Mapping

import asyncpg

from mailrail import config
from mailrail.config import Settings
from mailrail.db import migrate
from mailrail.db.pool import Connection, connect, without_password
from mailrail.errors import MailrailError
from mailrail.events import store as events
from mailrail.events.model import Pipeline
from mailrail.findings import Finding, attempt
from mailrail.ops import store

HELD_REMEDY = (
    "If this database is the latest there is, run `mailrail release`: it takes from the log of accepted mail whom SES has "
    "accepted already, names the campaigns that this database does not know, and lets sending go on. If there is a later state "
    "of the database, stop all processes and go back to that one"
)


async def examine(environment: Mapping[str, str], aws: bool = False) -> int:
    """All checks in order; status 1 if one failed. A check that another one stands on is left out when that one fails."""
    status = 0
    async for finding in findings(environment, aws):
        print(finding.line(), flush=True)
        if not finding.good:
            status = 1
    return status


async def findings(environment: Mapping[str, str], aws: bool) -> AsyncIterator[Finding]:
    """Settings, database, SES, and with `aws` all that mailrail needs in the AWS account."""
    try:
        settings = config.load(environment)
        config.require(settings, "secret_key")
    except MailrailError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding("settings", True)
    yield check_sending(settings)
    async for finding in database_findings(settings):
        yield finding
    if settings.worker_port:
        yield Finding(f"the worker's health and metrics: http://{settings.host}:{settings.worker_port}/metrics", True)
    yield await check_ses(settings)
    if aws:
        from mailrail.aws import examine as aws_account

        async for finding in aws_account.findings(settings):
            yield finding


def check_sending(settings: Settings) -> Finding:
    """Whether this version may send where the settings say."""
    try:
        config.require_sending(settings)
    except MailrailError as error:
        return Finding("sending", False, str(error))
    return Finding("sending", True)


async def database_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Reach it as each user that there is a URL for."""
    if settings.database_url:
        async for finding in migrator_findings(settings):
            yield finding
    for role, url in ((migrate.API, settings.api_database_url), (migrate.WORKER, settings.worker_database_url)):
        yield await check_role(role, url, settings.secret_key)
    if settings.worker_database_url:
        async for finding in running_findings(settings.worker_database_url):
            yield finding


async def running_findings(url: str) -> AsyncIterator[Finding]:
    """Whether the installation sends at all, and whether it hears of what it sent; silent where the database cannot tell, which the
    checks before this one say.
    """
    try:
        connection = await connect(url, application_name="mailrail doctor")
    except MailrailError:
        return
    try:
        hold, pipeline = await store.read_hold(connection), await events.read_pipeline(connection)
    except asyncpg.PostgresError:
        return
    finally:
        await connection.close()
    if hold.held_at is not None:
        yield Finding(
            f"sending, held since {hold.held_at:%Y-%m-%d %H:%M:%S} UTC", False, f"{hold.held_reason} {HELD_REMEDY}"
        )
    for finding in event_findings(pipeline):
        yield finding


def event_findings(pipeline: Pipeline) -> Iterator[Finding]:
    """The way of events from SES to here."""
    if pipeline.silent_since is not None:
        canary = (
            f"; the canary sent at {pipeline.canary_at:%H:%M:%S} UTC has not come back" if pipeline.canary_at else ""
        )
        yield Finding(
            f"events, silent for mail accepted since {pipeline.silent_since:%Y-%m-%d %H:%M:%S} UTC",
            False,
            f"SES accepts mail and nothing is heard of it{canary}. Check that a worker has the roles `apply` and `pull`, then "
            "let `mailrail doctor --aws` look at configuration set, topic, subscription and queue",
        )
    elif pipeline.heard_at is not None:
        yield Finding(f"events, last heard {pipeline.heard_at:%Y-%m-%d %H:%M:%S} UTC", True)
    if pipeline.dead:
        yield Finding(
            f"{pipeline.dead:,} messages in the dead-letter queue of events",
            False,
            "find out why they could not be taken, then put them back with "
            "`aws sqs start-message-move-task --source-arn ARN-OF-THE-DEAD-LETTER-QUEUE`",
        )
    if pipeline.parked:
        yield Finding(f"{pipeline.parked:,} notifications parked unread; `mailrail events parked` says why", True)


async def migrator_findings(settings: Settings) -> AsyncIterator[Finding]:
    """The user that runs `mailrail migrate`: reachable, new enough, and with the rights it needs."""
    what = f"database {without_password(settings.database_url)}"
    try:
        connection = await connect(settings.database_url, application_name="mailrail doctor")
    except MailrailError as error:
        yield Finding(what, False, str(error))
        return
    try:
        yield Finding(what, True)
        yield await attempt("PostgreSQL 18 or newer", migrate.check_server_version(connection))
        yield await check_rights(connection, settings.secret_key)
    finally:
        await connection.close()


async def check_rights(connection: Connection, secret_key: str) -> Finding:
    """The migrating user may make the roles, or somebody has made them for it."""
    rights = await migrate.read_rights(connection)
    what = f"rights of {rights.user}"
    missing = await migrate.missing_roles(connection, secret_key)
    if rights.can_make_roles or (not missing and rights.becomes_owner and rights.creates_schemas):
        return Finding(what, True)
    sql = migrate.administrator_sql(rights, missing)
    return Finding(what, False, f"let an administrator run this once in the database {rights.database}:\n\n{sql}\n")


async def check_role(role: str, url: str, secret_key: str) -> Finding:
    """The role gets in, finds all migrations, and the secret is the database's own."""
    if not url:
        return Finding(role, False, "no URL; set MAILRAIL_DATABASE_URL")
    try:
        connection = await connect(url, application_name="mailrail doctor")
    except MailrailError as error:
        return Finding(role, False, f"{error}; `mailrail migrate` makes the roles")
    try:
        return await attempt(f"{role}: migrations and secret", migrate.check_database(connection, secret_key))
    finally:
        await connection.close()


async def check_ses(settings: Settings) -> Finding:
    """The endpoint answers to our credentials."""
    from mailrail.ses import control

    what = f"SES at {settings.ses_endpoint or settings.ses_region}"
    try:
        account = await control.get_account(settings)
    except MailrailError as error:
        return Finding(what, False, f"{str(error).rstrip('.')}; check MAILRAIL_SES_ENDPOINT, its CA file and keys")
    if not account.sending_enabled:
        return Finding(what, False, "sending is disabled for this account")
    return Finding(f"{what} grants {account.max_send_rate:,.0f} recipients a second", True)
