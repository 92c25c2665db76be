"""Idempotency keys of transactional mail: kept in the transaction that takes the mail, and finished in the one that has
its outcome. Table idempotency_keys; for all other requests `web/idempotency.py` keeps them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailrail.db.pool import Connection
from mailrail.errors import IdempotencyKeyInUse, IdempotencyKeyReused

if TYPE_CHECKING:
    from mailrail.emails.desk_store import Answered
    from mailrail.emails.submission import Sent, Submission


@dataclass(frozen=True, slots=True)
class Key:
    """A request's key. `fingerprint` tells its body from others; `answer` makes what a repetition is answered with."""

    name: str
    fingerprint: bytes
    answer: Callable[[Sequence["Sent"]], tuple[int, bytes]]


class Replayed(Exception):
    """The request came before: this is its answer."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self.status = status
        self.body = body


async def take(
    conn: Connection, account_id: int, batch: Sequence["Submission"], is_test: bool, lease_s: float
) -> list["Submission"]:
    """The submissions whose key is new or who have none; the others get their answer. Waits for a twin's commit."""
    keyed = {each.key.name: each for each in batch if each.key is not None}
    if not keyed:
        return list(batch)
    # In order, or two batches could wait for each other.
    names = sorted(keyed)
    new = await conn.fetch(
        """INSERT INTO idempotency_keys (account_id, is_test, key, fingerprint, state, lease_until)
           SELECT $1, $2, key, fingerprint, 'in_progress', clock_timestamp() + make_interval(secs => $5)
           FROM unnest($3::text[], $4::bytea[]) AS k(key, fingerprint)
           ON CONFLICT DO NOTHING RETURNING key""",
        account_id,
        is_test,
        names,
        [keyed[name].key.fingerprint for name in names],  # type: ignore[union-attr]  # those without a key are not here
        lease_s,
    )
    known = sorted(set(names) - {row["key"] for row in new})
    if not known:
        return list(batch)
    found = await conn.fetch(
        """SELECT key, fingerprint, status, body, state = 'in_progress' AND lease_until > clock_timestamp() AS is_under_way
           FROM idempotency_keys WHERE account_id = $1 AND is_test = $2 AND key = ANY($3::text[])""",
        account_id,
        is_test,
        known,
    )
    for row in found:
        submission = keyed[row["key"]]
        assert submission.key is not None
        submission.fail(_verdict(row, submission.key))
    # A key that was swept away between the two statements is free again with the next try.
    for name in set(known) - {row["key"] for row in found}:
        keyed[name].fail(IdempotencyKeyInUse())
    return [each for each in batch if each.key is None or each.key.name not in known]


async def recall(conn: Connection, account_id: int, is_test: bool, key: Key) -> None:
    """Raises what a request is answered whose key came before: Replayed, IdempotencyKeyInUse, IdempotencyKeyReused."""
    row = await conn.fetchrow(
        """SELECT fingerprint, status, body, state = 'in_progress' AND lease_until > clock_timestamp() AS is_under_way
           FROM idempotency_keys WHERE account_id = $1 AND is_test = $2 AND key = $3""",
        account_id,
        is_test,
        key.name,
    )
    if row is not None:
        raise _verdict(row, key)


def _verdict(row: Any, key: Key) -> Exception:
    if row["fingerprint"] != key.fingerprint:
        return IdempotencyKeyReused()
    if row["is_under_way"] or row["body"] is None:
        return IdempotencyKeyInUse()
    # Of a process that died before it knew the outcome this is what was true when the mail was taken.
    return Replayed(row["status"], bytes(row["body"]))


async def drop(conn: Connection, account_id: int, is_test: bool, refused: Sequence["Submission"]) -> None:
    """Frees the keys of requests that came to nothing."""
    names = [each.key.name for each in refused if each.key is not None]
    if names:
        await conn.execute(
            "DELETE FROM idempotency_keys WHERE account_id = $1 AND is_test = $2 AND key = ANY($3::text[])",
            account_id,
            is_test,
            names,
        )


async def keep(
    conn: Connection,
    account_id: int,
    is_test: bool,
    submissions: Sequence["Submission"],
    stream_id: int,
    by_seq: Mapping[int, "Answered"] | None,
) -> None:
    """Keeps what is true now as the answer; the last one unless `by_seq` is None and a process is still about to send."""
    keyed = [each for each in submissions if each.key is not None]
    if not keyed:
        return
    answers = [each.key.answer(each.sent(stream_id, by_seq or {})) for each in keyed if each.key is not None]
    await conn.execute(
        """UPDATE idempotency_keys k SET status = a.status, body = a.body, stream_id = $3, seq = a.seq,
             state = CASE WHEN $4 THEN 'done' ELSE 'in_progress' END
           FROM unnest($5::text[], $6::smallint[], $7::bytea[], $8::integer[]) AS a(key, status, body, seq)
           WHERE k.account_id = $1 AND k.is_test = $2 AND k.key = a.key""",
        account_id,
        is_test,
        stream_id,
        by_seq is not None,
        [each.key.name for each in keyed if each.key is not None],
        [status for status, _ in answers],
        [body for _, body in answers],
        [each.placed[0].first_seq for each in keyed],
    )


async def forget_answers(conn: Connection, account_id: int, folded: str) -> None:
    """Drops kept answers that name an erased person's address; their keys stay, so that nothing is sent twice."""
    await conn.execute(
        """UPDATE idempotency_keys SET body = NULL
           WHERE account_id = $1 AND body IS NOT NULL
             -- Those of other requests are sealed, and no text.
             AND CASE WHEN stream_id IS NOT NULL THEN position($2 IN lower(convert_from(body, 'UTF8'))) > 0 ELSE false END""",
        account_id,
        folded,
    )
