"""The second half of the store of contacts: many at once, staged by COPY and merged set-wise."""

import io
from dataclasses import dataclass

from mailrail.db.pool import Connection, fetch_one

# Every join goes from some thousand staged rows, in the order of the index, into a table of millions. Without statistics
# the planner would rather read the large one whole.
_STAGING = """
CREATE TEMP TABLE IF NOT EXISTS staged_contacts (
  email text NOT NULL, name text, first_name text, last_name text, name_given boolean NOT NULL, status text,
  tags text[] NOT NULL, custom_fields jsonb NOT NULL) ON COMMIT DELETE ROWS;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL enable_seqscan = off;
SET LOCAL jit = off
"""

# $1 account, $2 import, $3 list or NULL, $4 whether known contacts are updated.
# Rows come in the order of the address, so that two imports of one account cannot lock each other.
_KNOWN = "c.account_id = $1 AND c.email_folded = lower(s.email)"
_SUPPRESSED = "EXISTS (SELECT FROM suppressions x WHERE x.account_id = $1 AND x.email_folded = lower(s.email))"
# An import never takes back that somebody does not want mail, or cannot get it.
_LEFT_ALONE = f"(c.status <> 'subscribed' OR {_SUPPRESSED})"
_SAYS_MORE = """(s.status = 'unsubscribed' OR NOT c.tags @> s.tags OR c.custom_fields || s.custom_fields <> c.custom_fields
  OR CASE WHEN s.name_given
     THEN (s.name, s.first_name, s.last_name) IS DISTINCT FROM (c.name, c.first_name, c.last_name)
     ELSE coalesce(s.first_name <> c.first_name, s.first_name IS NOT NULL)
          OR coalesce(s.last_name <> c.last_name, s.last_name IS NOT NULL) END)"""
# As `Names.changed` does for one contact.
_NAME = """CASE WHEN s.name_given THEN s.name WHEN s.first_name IS NULL AND s.last_name IS NULL THEN c.name
  ELSE nullif(concat_ws(' ', nullif(coalesce(s.first_name, c.first_name), ''),
                        nullif(coalesce(s.last_name, c.last_name), '')), '') END"""

_MERGE = f"""
WITH written AS (
  MERGE INTO contacts c USING staged_contacts s ON {_KNOWN}
  WHEN MATCHED AND {_LEFT_ALONE} THEN DO NOTHING
  WHEN MATCHED AND NOT ($4 OR coalesce(c.import_id = $2, false)) THEN DO NOTHING
  WHEN MATCHED AND {_SAYS_MORE} THEN UPDATE SET
    name = {_NAME},
    first_name = CASE WHEN s.name_given THEN s.first_name ELSE coalesce(s.first_name, c.first_name) END,
    last_name = CASE WHEN s.name_given THEN s.last_name ELSE coalesce(s.last_name, c.last_name) END,
    status = coalesce(s.status, c.status),
    tags = CASE WHEN c.tags @> s.tags THEN c.tags
           ELSE c.tags || ARRAY(SELECT t FROM unnest(s.tags) t WHERE t <> ALL (c.tags)) END,
    custom_fields = c.custom_fields || s.custom_fields,
    import_id = $2, updated_at = now()
  WHEN MATCHED THEN DO NOTHING
  WHEN NOT MATCHED AND {_SUPPRESSED} THEN DO NOTHING
  WHEN NOT MATCHED THEN INSERT
    (account_id, email, name, first_name, last_name, status, tags, custom_fields, import_id)
    VALUES ($1, s.email, s.name, s.first_name, s.last_name, coalesce(s.status, 'subscribed'), s.tags, s.custom_fields, $2)
  RETURNING c.id, merge_action() AS action, coalesce(old.import_id = $2, false) AS again
), joined AS (
  INSERT INTO list_members (list_id, contact_id, account_id)
  SELECT $3, id, $1 FROM written WHERE $3::bigint IS NOT NULL ORDER BY id
  ON CONFLICT DO NOTHING
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
  SELECT c.id, c.import_id, c.id IS NULL OR {_LEFT_ALONE} AS left_alone
  FROM staged_contacts s LEFT JOIN contacts c ON {_KNOWN}
  WHERE NOT coalesce(c.import_id = $2 AND c.updated_at = now(), false)
), joined AS (
  INSERT INTO list_members (list_id, contact_id, account_id)
  SELECT $3, id, $1 FROM rest WHERE $3::bigint IS NOT NULL AND NOT left_alone ORDER BY id
  ON CONFLICT DO NOTHING
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
    """Takes binary COPY rows (email, name, first_name, last_name, name_given, status, tags, custom_fields), one per
    address and in the order of lower(email). They are there until the caller's transaction ends.
    """
    await conn.execute(_STAGING)
    await conn.copy_to_table("staged_contacts", source=io.BytesIO(contacts), format="binary")


async def merge(
    conn: Connection, account_id: int, import_id: int, staged: int, *, list_id: int | None, update: bool
) -> Merged:
    """Creates the staged contacts or adds to known ones what is new of them, and puts them on the list.

    Whoever is not subscribed, or suppressed, stays as he is and off the list. Without `update` known contacts only join the
    list. A contact that somebody else creates at the same moment is a UniqueViolationError: the transaction may come again.
    """
    options = (account_id, import_id, list_id, update)
    written = await fetch_one(conn, _MERGE, *options)
    if sum(written) == staged:
        return Merged(**written, unchanged=0, skipped=0)
    return Merged(**written, **await fetch_one(conn, _REST, *options))
