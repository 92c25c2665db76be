"""The fourth part of the store of contacts: many at once, staged by COPY and merged set-wise."""

import io
from dataclasses import dataclass

from mailrail.contacts import consents
from mailrail.contacts.consent import IMPORT, Consent
from mailrail.db.pool import Connection, fetch_one
from mailrail.suppressions import service as suppressions

# Every join goes from some thousand staged rows, in the order of the index, into a table of millions. Without statistics
# the planner would rather read the large one whole.
_STAGING = """
CREATE TEMP TABLE IF NOT EXISTS staged_contacts (
  email text NOT NULL, name text, first_name text, last_name text, name_given boolean NOT NULL, status text,
  tags text[] NOT NULL, custom_fields jsonb NOT NULL, tracking boolean) ON COMMIT DELETE ROWS;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL enable_seqscan = off;
SET LOCAL jit = off
"""

# $1 account, $2 import, $3 list or NULL, $4 whether known contacts are updated, $5 whether the list asks first, $6 source and
# $7 wording of the consent.
# Rows come in the order of the address, so that two imports of one account cannot lock each other.
_KNOWN = "c.account_id = $1 AND c.email_folded = lower(s.email)"
_SUPPRESSED = "EXISTS (SELECT FROM suppressions x WHERE x.account_id = $1 AND x.email_folded = lower(s.email))"
# An import never takes back that somebody does not want mail, or cannot get it.
_LEFT_ALONE = f"(c.status NOT IN ('subscribed', 'pending') OR {_SUPPRESSED})"
_SAYS_MORE = """(s.status = 'unsubscribed' OR NOT c.tags @> s.tags OR c.custom_fields || s.custom_fields <> c.custom_fields
  OR coalesce(s.tracking <> c.tracking, false)
  OR CASE WHEN s.name_given
     THEN (s.name, s.first_name, s.last_name) IS DISTINCT FROM (c.name, c.first_name, c.last_name)
     ELSE coalesce(s.first_name <> c.first_name, s.first_name IS NOT NULL)
          OR coalesce(s.last_name <> c.last_name, s.last_name IS NOT NULL) END)"""
# As `Names.changed` does for one contact.
_NAME = """CASE WHEN s.name_given THEN s.name WHEN s.first_name IS NULL AND s.last_name IS NULL THEN c.name
  ELSE nullif(concat_ws(' ', nullif(coalesce(s.first_name, c.first_name), ''),
                        nullif(coalesce(s.last_name, c.last_name), '')), '') END"""

# Puts {people} on the list. Nobody is asked who does not want mail, and nobody for the second time.
_JOIN = """
  INSERT INTO list_members (list_id, contact_id, account_id, status, confirm_due_at)
  SELECT $3, id, $1, CASE WHEN status = 'unsubscribed' THEN status WHEN $5 THEN 'pending' ELSE 'subscribed' END,
    CASE WHEN $5 AND status <> 'unsubscribed' THEN now() END
  FROM {people} WHERE $3::bigint IS NOT NULL {further} ORDER BY id
  ON CONFLICT DO NOTHING RETURNING contact_id, status"""
# One row for all who said the same.
_SAY = """
  INSERT INTO consents (account_id, contact_ids, list_id, status, source, wording_id, import_id, at)
  SELECT $1, array_agg(contact_id ORDER BY contact_id), $3, status, $6::text, $7::bigint, $2, now() FROM joined GROUP BY status"""

_MERGE = f"""
WITH written AS (
  MERGE INTO contacts c USING staged_contacts s ON {_KNOWN}
  WHEN MATCHED AND {_LEFT_ALONE} THEN DO NOTHING
  WHEN MATCHED AND NOT ($4 OR coalesce(c.import_id = $2, false)) THEN DO NOTHING
  WHEN MATCHED AND {_SAYS_MORE} THEN UPDATE SET
    name = {_NAME},
    first_name = CASE WHEN s.name_given THEN s.first_name ELSE coalesce(s.first_name, c.first_name) END,
    last_name = CASE WHEN s.name_given THEN s.last_name ELSE coalesce(s.last_name, c.last_name) END,
    status = CASE s.status WHEN 'unsubscribed' THEN s.status ELSE c.status END,
    tags = CASE WHEN c.tags @> s.tags THEN c.tags
           ELSE c.tags || ARRAY(SELECT t FROM unnest(s.tags) t WHERE t <> ALL (c.tags)) END,
    custom_fields = c.custom_fields || s.custom_fields,
    tracking = coalesce(s.tracking, c.tracking),
    import_id = $2, updated_at = now()
  WHEN MATCHED THEN DO NOTHING
  WHEN NOT MATCHED AND {_SUPPRESSED} THEN DO NOTHING
  WHEN NOT MATCHED THEN INSERT
    (account_id, email, name, first_name, last_name, status, tags, custom_fields, tracking, import_id)
    VALUES ($1, s.email, s.name, s.first_name, s.last_name,
      CASE WHEN s.status = 'unsubscribed' THEN s.status WHEN $5 THEN 'pending' ELSE 'subscribed' END, s.tags, s.custom_fields,
      coalesce(s.tracking, true), $2)
  RETURNING c.id, c.status, merge_action() AS action, coalesce(old.import_id = $2, false) AS again, old.status AS old_status
), joined AS ({_JOIN.format(people="written", further="")}
), said AS ({_SAY}
  UNION ALL SELECT $1, array_agg(id ORDER BY id), NULL, status, $6, $7, $2, now() FROM written
  WHERE CASE action WHEN 'INSERT' THEN $3::bigint IS NULL OR status = 'unsubscribed' ELSE status <> old_status END
  GROUP BY status
)
SELECT count(*) FILTER (WHERE action = 'INSERT')::integer AS created,
       count(*) FILTER (WHERE action = 'UPDATE' AND NOT again)::integer AS updated,
       count(*) FILTER (WHERE action = 'UPDATE' AND again)::integer AS doubled
FROM written
"""

# Those of the staged rows that the merge did not write: it marks what it writes with the import and the time of the
# transaction, and one import has one transaction at a time.
_REST = f"""
WITH rest AS (
  SELECT c.id, c.status, c.import_id, c.id IS NULL OR {_LEFT_ALONE} AS left_alone
  FROM staged_contacts s LEFT JOIN contacts c ON {_KNOWN}
  WHERE NOT coalesce(c.import_id = $2 AND c.updated_at = now(), false)
), joined AS ({_JOIN.format(people="rest", further="AND NOT left_alone")}
), said AS ({_SAY}
)
SELECT count(*) FILTER (WHERE NOT left_alone AND ($4 OR coalesce(import_id = $2, false)))::integer AS unchanged,
       count(*) FILTER (WHERE left_alone OR NOT ($4 OR coalesce(import_id = $2, false)))::integer AS skipped
FROM rest
"""


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of staged rows. `doubled` were written by the same import before."""

    created: int
    updated: int
    doubled: int
    unchanged: int
    skipped: int


async def stage(conn: Connection, contacts: bytes) -> None:
    """Takes binary COPY rows (email, name, first_name, last_name, name_given, status, tags, custom_fields, tracking), one
    per address and in the order of lower(email). They are there until the caller's transaction ends.
    """
    await conn.execute(_STAGING)
    await conn.copy_to_table("staged_contacts", source=io.BytesIO(contacts), format="binary")


async def merge(
    conn: Connection,
    account_id: int,
    import_id: int,
    staged: int,
    secret_key: str,
    *,
    list_id: int | None,
    update: bool,
    consent: Consent,
) -> Merged:
    """Creates the staged contacts or adds to known ones what is new of them, and puts them on the list; a list with double
    opt-in asks them first.

    Whoever does not want mail, or is suppressed, stays as he is and off the list. Without `update` known contacts only join the
    list. A contact that somebody else creates at the same moment is a UniqueViolationError: the transaction may come again.
    """
    if await suppressions.any_erased(conn, account_id):
        await suppressions.wake(conn, account_id, await _staged_addresses(conn), secret_key)
    asks_first = None if list_id is None else await _asks_first(conn, account_id, list_id)
    options = (
        account_id,
        import_id,
        # Deleted meanwhile: the contacts come all the same.
        None if asks_first is None else list_id,
        update,
        asks_first is True,
        consent.source or IMPORT,
        None if consent.wording is None else await consents.wording(conn, account_id, consent.wording),
    )
    written = await fetch_one(conn, _MERGE, *options)
    if sum(written) == staged:
        return Merged(**written, unchanged=0, skipped=0)
    return Merged(**written, **await fetch_one(conn, _REST, *options))


async def _staged_addresses(conn: Connection) -> list[str]:
    return [row["email"] for row in await conn.fetch("SELECT lower(email) AS email FROM staged_contacts")]


async def _asks_first(conn: Connection, account_id: int, list_id: int) -> bool | None:
    asks: bool | None = await conn.fetchval(
        "SELECT double_opt_in FROM lists WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL", list_id, account_id
    )
    return asks
