"""Every statement on idempotency_keys and request_windows."""

from dataclasses import dataclass

from mailrail.db.pool import Connection, fetch_one

SWEEP_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose an Idempotency-Key is: an account's, its test keys apart from the live ones."""

    account_id: int
    is_test: bool
    key: str

    @property
    def place(self) -> str:
        """A text that no other key has."""
        return f"{self.account_id} {'test' if self.is_test else 'live'} {self.key}"


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a request was answered, its body sealed; `status` is None while a send is under way."""

    fingerprint: bytes
    status: int | None
    body: bytes | None


async def try_lock_key(conn: Connection, owner: Owner) -> bool:
    """Takes the key for the transaction; False while another one has it. What that one commits is seen by the next
    statement, not by this one.
    """
    taken: bool = await conn.fetchval(
        "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", f"idempotency {owner.place}"
    )
    return taken


async def find_answer(conn: Connection, owner: Owner) -> KeptAnswer | None:
    """The answer kept under this key."""
    row = await conn.fetchrow(
        "SELECT fingerprint, status, body FROM idempotency_keys WHERE account_id = $1 AND is_test = $2 AND key = $3",
        owner.account_id,
        owner.is_test,
        owner.key,
    )
    return None if row is None else KeptAnswer(**row)


async def insert_answer(conn: Connection, owner: Owner, answer: KeptAnswer) -> None:
    """Keeps the answer; the key is locked and free."""
    await conn.execute(
        """INSERT INTO idempotency_keys (account_id, is_test, key, fingerprint, state, status, body)
           VALUES ($1, $2, $3, $4, 'done', $5, $6)""",
        owner.account_id,
        owner.is_test,
        owner.key,
        answer.fingerprint,
        answer.status,
        answer.body,
    )


async def delete_old_answers(conn: Connection) -> int:
    """Deletes some that are older than 24 hours; how many it were, SWEEP_ROWS if there may be more. For workers."""
    deleted: int = await conn.fetchval(
        """WITH gone AS (
             DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
               SELECT ctid FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
               ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED))
             RETURNING 1)
           SELECT count(*) FROM gone""",
        SWEEP_ROWS,
    )
    return deleted


async def count_request(conn: Connection, account_id: int) -> tuple[int, float]:
    """Counts a request: how many it are in the account's minute, this one included, and the seconds that are left of it."""
    row = await fetch_one(conn, "SELECT used, left_s FROM count_request($1)", account_id)
    return row["used"], row["left_s"]
