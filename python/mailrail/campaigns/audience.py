"""Whom an audience reaches: the third part of the store of campaigns.

An audience becomes one statement, which runs as the tenant. Names and operators come from the tables of this file; whatever
a user wrote travels as a parameter. A condition of which a contact has nothing that could be compared does not hold, so
`!=` is true of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from mailrail.campaigns.model import CUSTOM, TIME, Audience, Condition, Op, moment_of
from mailrail.db.pool import Connection

# Fields of every contact, as model.py names them; addresses are compared whatever their case.
TEXT_COLUMNS = {"email": "c.email_folded", "firstName": "c.first_name", "lastName": "c.last_name", "name": "c.name"}
TIME_COLUMNS = {"createdAt": "c.created_at"}
# Numbers that came as text, as a CSV brings them.
NUMBER = r"-?[0-9]{1,15}(\.[0-9]{1,15})?"

# Of those with a gap, so many are named.
SAMPLE_SHOWN = 3
# No contact has this tag: what the columns list_id and tags say where `audience` says more.
_NOBODY = [""]
_ORDERED = {
    Op.LESS: "<",
    Op.LESS_OR_EQUAL: "<=",
    Op.GREATER: ">",
    Op.GREATER_OR_EQUAL: ">=",
    Op.BEFORE: "<",
    Op.AFTER: ">",
}

_SUPPRESSED = "EXISTS (SELECT FROM suppressions s WHERE s.account_id = $1 AND s.email_folded = c.email_folded)"


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom an audience matches, and why some of them get nothing, by reason."""

    matched: int
    recipients: int
    skipped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """How many recipients have nothing in a field, and up to three of them."""

    recipients: int = 0
    contact_ids: tuple[int, ...] = ()


class Compiled:
    """An audience as SQL over contacts `c`. $1 is the account; the other parameters are `values`, in their order."""

    def __init__(self, account_id: int, audience: Audience) -> None:
        self.values: list[Any] = [account_id]
        parts = ["c.account_id = $1"]
        self.source = "contacts c"
        if audience.tags:
            self.source = f"contacts_tagged($1, {self.put(audience.tags, 'text[]')}) c"
        parts += [self.condition(one) for one in audience.where]
        if audience.exclude is not None:
            parts.append(f"({self.left_out(audience.exclude)}) IS NOT TRUE")
        self.member, self.subscribed_member, self.pending_member = "true", "true", "false"
        if audience.lists:
            lists = self.put(audience.lists, "bigint[]")
            self.member = _member(lists)
            self.subscribed_member, self.pending_member = _member(lists, "subscribed"), _member(lists, "pending")
        # Who is asked for, whether subscribed or not, and who gets it.
        self.matching = " AND ".join([*parts, self.member])
        self.reached = " AND ".join([*parts, "c.status = 'subscribed'", self.subscribed_member, f"NOT {_SUPPRESSED}"])

    def lacks(self, field: str) -> str:
        """True of a contact for whom the field prints nothing."""
        return f"coalesce(btrim({self._any_text(field)}), '') = ''"

    def put(self, value: Any, kind: str) -> str:
        """Adds a parameter; returns how it is named in the statement."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    def left_out(self, audience: Audience) -> str:
        """As above, for contacts at hand: no index is asked. Who was ever on a list counts, or leaving it would bring mail."""
        parts = [self.condition(one) for one in audience.where]
        if audience.tags:
            parts.append(f"c.tags @> {self.put(audience.tags, 'text[]')}")
        if audience.lists:
            parts.append(_member(self.put(audience.lists, "bigint[]")))
        return " AND ".join(parts)

    def condition(self, one: Condition) -> str:
        """True where it holds, else false or null."""
        match one.op:
            case Op.EXISTS:
                return f"({self._any_text(one.field)} <> '') IS {'' if one.value else 'NOT '}TRUE"
            case Op.NOT_EQUAL:
                return f"({self._compared(one.field, '=', one.value)}) IS NOT TRUE"
            case Op.EQUAL:
                return self._compared(one.field, "=", one.value)
            case Op.IN:
                return f"({' OR '.join(self._in(one.field, one.value))})"
            case Op.STARTS_WITH:
                return f"starts_with({self._text(one.field)}, {self._text_value(one.field, one.value)})"
            case Op.CONTAINS:
                return self._contains(one.field, one.value)
            case Op.BEFORE | Op.AFTER:
                return f"{self._time(one.field)} {_ORDERED[one.op]} {self.put(moment_of(one.value), 'timestamptz')}"
        if one.field in TIME_COLUMNS:
            return f"{TIME_COLUMNS[one.field]} {_ORDERED[one.op]} {self.put(moment_of(one.value), 'timestamptz')}"
        return self._compared(one.field, _ORDERED[one.op], one.value)

    def _compared(self, field: str, operator: str, value: Any) -> str:
        if isinstance(value, bool):
            return f"{self._truth(field)} {operator} {self.put(str(value).lower(), 'text')}"
        if isinstance(value, int | float):
            return f"{self._number(field)} {operator} {self.put(Decimal(repr(value)), 'numeric')}"
        # An order of code points, not of some language: the same on every server.
        order = "" if operator == "=" else ' COLLATE "C"'
        return f"{self._text(field)}{order} {operator} {self._text_value(field, value)}"

    def _in(self, field: str, values: list[Any]) -> list[str]:
        texts = [value for value in values if isinstance(value, str)]
        numbers = [Decimal(repr(value)) for value in values if not isinstance(value, str)]
        found = []
        if texts:
            folded = [text.lower() for text in texts] if field == "email" else texts
            found.append(f"{self._text(field)} = ANY({self.put(folded, 'text[]')})")
        if numbers:
            found.append(f"{self._number(field)} = ANY({self.put(numbers, 'numeric[]')})")
        return found

    def _contains(self, field: str, value: str) -> str:
        """Part of a text, or an item of a list."""
        wanted = self._text_value(field, value)
        part = f"strpos({self._text(field)}, {wanted}) > 0"
        if field in TEXT_COLUMNS:
            return part
        json = self._json(field)
        return f"({part} OR (jsonb_typeof({json}) = 'array' AND {json} ? {wanted}))"

    def _text_value(self, field: str, value: str) -> str:
        wanted = self.put(value, "text")
        return f"lower({wanted})" if field == "email" else wanted

    def _json(self, field: str) -> str:
        return f"(c.custom_fields -> {self.put(field.removeprefix(CUSTOM), 'text')})"

    def _any_text(self, field: str) -> str:
        return TEXT_COLUMNS.get(field) or f"({self._json(field)} #>> '{{}}')"

    def _text(self, field: str) -> str:
        if field in TEXT_COLUMNS:
            return TEXT_COLUMNS[field]
        json = self._json(field)
        return f"(CASE WHEN jsonb_typeof({json}) = 'string' THEN {json} #>> '{{}}' END)"

    def _truth(self, field: str) -> str:
        json = self._json(field)
        return f"(CASE WHEN jsonb_typeof({json}) IN ('boolean', 'string') THEN {json} #>> '{{}}' END)"

    def _number(self, field: str) -> str:
        json = self._json(field)
        return (
            f"(CASE jsonb_typeof({json}) WHEN 'number' THEN {json}::numeric WHEN 'string' THEN "
            f"CASE WHEN {json} #>> '{{}}' ~ '^{NUMBER}$' THEN ({json} #>> '{{}}')::numeric END END)"
        )

    def _time(self, field: str) -> str:
        if field in TIME_COLUMNS:
            return TIME_COLUMNS[field]
        text = self._text(field)
        return (
            f"(CASE WHEN {text} ~ '^{TIME}$' THEN "
            f"CASE WHEN pg_input_is_valid({text}, 'timestamptz') THEN {text}::timestamptz END END)"
        )


def _member(lists: str, status: str | None = None) -> str:
    """Whether the contact is on one of the lists; `status` is a word of ours."""
    is_so = "" if status is None else f" AND m.status = '{status}'"
    return (
        f"EXISTS (SELECT FROM list_members m WHERE m.list_id = ANY({lists}) AND m.contact_id = c.id "
        f"AND m.account_id = $1{is_so})"
    )


async def count(conn: Connection, account_id: int, audience: Audience) -> int:
    """Who would be written to now."""
    made = Compiled(account_id, audience)
    found: int = await conn.fetchval(
        f"SELECT count(*)::integer FROM {made.source} WHERE {made.reached}",
        *made.values,
    )
    return found


async def freeze(conn: Connection, account_id: int, stream_id: int, audience: Audience) -> int:
    """Numbers the audience from 1 into the stream; returns its size."""
    made = Compiled(account_id, audience)
    status = await conn.execute(
        f"""INSERT INTO audience (stream_id, seq, account_id, contact_id, email)
            SELECT {made.put(stream_id, "bigint")}, row_number() OVER (ORDER BY c.id), $1, c.id, c.email
            FROM {made.source} WHERE {made.reached}""",
        *made.values,
    )
    return int(status.rpartition(" ")[2])


async def measure(conn: Connection, account_id: int, audience: Audience) -> Reach:
    """Everybody whom it matches: who would be written to now, and who not and why."""
    made = Compiled(account_id, audience)
    rows = await conn.fetch(
        f"""SELECT reason, count(*)::integer AS contacts FROM (
              SELECT CASE WHEN c.status <> 'subscribed' THEN c.status
                          WHEN NOT {made.subscribed_member}
                            THEN CASE WHEN {made.pending_member} THEN 'pending' ELSE 'unsubscribed' END
                          WHEN {_SUPPRESSED} THEN 'suppressed' END AS reason
              FROM {made.source} WHERE {made.matching}) AS judged
            GROUP BY reason ORDER BY reason""",
        *made.values,
    )
    counts = {row["reason"]: row["contacts"] for row in rows}
    return Reach(sum(counts.values()), counts.pop(None, 0), counts)


async def lacking(conn: Connection, account_id: int, audience: Audience, fields: Sequence[str]) -> dict[str, Gap]:
    """Who of those who would be written to now has nothing in these fields, all of them in one pass over the audience.

    Recipients who lack the same are counted together, so there are few groups whatever the size of the audience.
    """
    made = Compiled(account_id, audience)
    lacks = ", ".join(made.lacks(one) for one in fields)
    rows = await conn.fetch(
        f"""SELECT lacks, count(*)::integer AS recipients, ARRAY[min(id), max(id), min(id) FILTER (WHERE id % 2 = 0),
              min(id) FILTER (WHERE id % 2 = 1)] AS some
            FROM (SELECT c.id, ARRAY[{lacks}] AS lacks FROM {made.source} WHERE {made.reached}) AS judged
            GROUP BY lacks""",
        *made.values,
    )
    gaps = {}
    for place, field in enumerate(fields):
        short = [row for row in rows if row["lacks"][place]]
        some = sorted({one for row in short for one in row["some"] if one is not None})
        gaps[field] = Gap(sum(row["recipients"] for row in short), tuple(some[:SAMPLE_SHOWN]))
    return gaps


async def sample(conn: Connection, account_id: int, audience: Audience, size: int) -> list[dict[str, Any]]:
    """The recipient of whom most is known, and up to `size` others: what the core takes of a contact."""
    made = Compiled(account_id, audience)
    columns = "c.id AS contact_id, c.email, c.name, c.first_name, c.last_name, c.custom_fields"
    rows = await conn.fetch(
        f"""(SELECT {columns} FROM {made.source} WHERE {made.reached}
             ORDER BY pg_column_size(c.custom_fields) + octet_length(concat(c.name, c.first_name, c.last_name, c.email)) DESC
             LIMIT 1)
            UNION ALL (SELECT {columns} FROM {made.source} WHERE {made.reached} LIMIT {made.put(size, "integer")})""",
        *made.values,
    )
    return list({row["contact_id"]: dict(row) for row in rows}.values())


# —— as it is stored ——————————————————————————————————————————————————————————————————————————————————————————————————————


def to_columns(audience: Audience) -> tuple[int | None, list[str], dict[str, Any] | None]:
    """list_id, tags and audience: the last only where the others cannot say it."""
    if len(audience.lists) <= 1 and not audience.where and audience.exclude is None:
        return (audience.lists[0] if audience.lists else None), audience.tags, None
    return None, _NOBODY, _stored(audience)


def from_columns(list_id: int | None, tags: list[str], stored: dict[str, Any] | None) -> Audience:
    """The inverse of `to_columns`."""
    if stored is None:
        return Audience(tags, [] if list_id is None else [list_id])
    exclude = stored.get("exclude")
    return Audience(
        stored["tags"],
        stored["lists"],
        [Condition(field, Op(op), value) for field, op, value in stored["where"]],
        None if exclude is None else from_columns(None, [], exclude),
    )


def _stored(audience: Audience) -> dict[str, Any]:
    return {
        **asdict(audience),
        "where": [[one.field, one.op, one.value] for one in audience.where],
        "exclude": None if audience.exclude is None else _stored(audience.exclude),
    }
