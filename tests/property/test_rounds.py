"""What the core encodes for people and mails that are at hand is what PostgreSQL's COPY makes of the same in its tables."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrail._core import encode_mail_rows, encode_recipient_row
from mailrail.db.pool import Connection, connect
from mailrail.emails import mails, store
from mailrail.emails.model import LeasedShard, Outcome, Round
from tests.support.postgres import Database
from tests.support.streams import TestStream, make_account, make_stream

SKIPS = {
    "subscribed": None,
    "unsubscribed": Outcome.SKIPPED_UNSUBSCRIBED,
    "bounced": Outcome.SKIPPED_SUPPRESSED,
    "complained": Outcome.SKIPPED_SUPPRESSED,
}
# What PostgreSQL's text can hold.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
attempts = st.integers(1, 2**15 - 1)


@dataclass(frozen=True, slots=True)
class Person:
    """What a contact says of itself."""

    name: str | None
    first_name: str | None
    last_name: str | None
    custom_fields: dict[str, Any]
    status: str
    tracking: bool


people = st.builds(
    Person,
    name=st.none() | texts,
    first_name=st.none() | texts,
    last_name=st.none() | texts,
    custom_fields=st.dictionaries(texts, values, max_size=3),
    status=st.sampled_from(sorted(SKIPS)),
    tracking=st.booleans(),
)


@dataclass
class Stage:
    """A campaign with one recipient, and a connection that reads as the workers do."""

    runner: asyncio.Runner
    conn: Connection
    stream: TestStream
    shard: LeasedShard


@pytest.fixture(scope="module")
def stage(database: Database) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        conn = runner.run(connect(database.worker_url, application_name="tests rounds"))
        account_id = runner.run(make_account(conn))
        stream = runner.run(make_stream(conn, account_id, 1))
        yield Stage(runner, conn, stream, LeasedShard(stream.stream_id, 0, account_id, lease_id=1, epoch=1))
        runner.run(conn.close())


def only(attempt: int) -> Round:
    """The claim of the one recipient."""
    return Round(claim_id=1, attempt=attempt, first_seq=1, last_seq=1, seqs=None)


@given(people, attempts)
def test_a_recipient_is_encoded_as_copy_does(stage: Stage, person: Person, attempt: int) -> None:
    async def both() -> tuple[bytes, bytes]:
        contact = await stage.conn.fetchrow(
            """UPDATE contacts SET name = $2, first_name = $3, last_name = $4, custom_fields = $5, status = $6, tracking = $7
               WHERE account_id = $1 RETURNING id, email, custom_fields::text AS custom_fields""",
            stage.stream.account_id,
            person.name,
            person.first_name,
            person.last_name,
            person.custom_fields,
            person.status,
            person.tracking,
        )
        assert contact is not None
        encoded = encode_recipient_row(
            1,
            contact["email"],
            attempt=attempt,
            skip=SKIPS[person.status],
            contact_id=contact["id"],
            name=person.name,
            first_name=person.first_name,
            last_name=person.last_name,
            custom_fields=contact["custom_fields"].encode(),
            tracked=person.tracking,
        )
        return encoded, await store.read_round(stage.conn, stage.shard, only(attempt), [])

    encoded, copied = stage.runner.run(both())
    assert encoded == copied


@given(st.binary(max_size=100), attempts)
def test_a_mail_is_encoded_as_copy_does(stage: Stage, content: bytes, attempt: int) -> None:
    async def both() -> tuple[bytes, bytes]:
        stream_id = stage.stream.stream_id
        email = await stage.conn.fetchval(
            """INSERT INTO mails (stream_id, seq, account_id, first_seq, role, email_folded, created_at, sender, subject, tags,
                 content)
               SELECT stream_id, seq, account_id, seq, 'to', lower(email), now(), 'you@acme.com', 'Hi', '{}', $2
               FROM audience WHERE stream_id = $1
               ON CONFLICT (stream_id, seq) DO UPDATE SET content = excluded.content
               RETURNING email_folded""",
            stream_id,
            content,
        )
        encoded = encode_mail_rows(stream_id, [1], attempt, [None], [email], [content])
        return encoded, await mails.read_round(stage.conn, stage.shard, only(attempt))

    encoded, copied = stage.runner.run(both())
    assert encoded == copied
