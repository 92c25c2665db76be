"""Every statement on templates and template_versions."""

from collections.abc import Sequence
from typing import Any

from mailrail.db.pool import Connection, fetch_one
from mailrail.templates.model import Content, Inspection, Ref, Template, TemplateNotFound, Version

_COLUMNS = "id, account_id, name, version, created_at, updated_at"
_VERSION_COLUMNS = (
    "v.template_id, v.version, v.subject, v.preheader, v.html, v.text, v.variables, v.warnings, v.created_at"
)


async def insert_template(conn: Connection, account_id: int, name: str) -> Template:
    """A new template, whose version 1 the caller adds; nobody else has its name."""
    row = await fetch_one(
        conn, f"INSERT INTO templates (account_id, name) VALUES ($1, $2) RETURNING {_COLUMNS}", account_id, name
    )
    return Template(**row)


async def insert_version(
    conn: Connection, template: Template, content: Content, found: Inspection, warnings: Sequence[str]
) -> Version:
    """The content as the version at which the template is."""
    row = await fetch_one(
        conn,
        f"""INSERT INTO template_versions AS v (template_id, version, account_id, subject, preheader, html, text, variables,
              warnings)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING {_VERSION_COLUMNS}""",
        template.id,
        template.version,
        template.account_id,
        content.subject,
        content.preheader,
        content.html,
        content.text,
        found.variables,
        list(warnings),
    )
    return _version(row)


async def read_template(conn: Connection, account_id: int, template_id: int, *, lock: bool = False) -> Template:
    """Raises TemplateNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM templates WHERE id = $1 AND account_id = $2 {'FOR UPDATE' if lock else ''}",
        template_id,
        account_id,
    )
    return _found(row)


async def find_template(conn: Connection, account_id: int, name: str) -> int | None:
    """The number of the template of this name."""
    template_id: int | None = await conn.fetchval(
        "SELECT id FROM templates WHERE account_id = $1 AND name = $2", account_id, name
    )
    return template_id


async def read_version(conn: Connection, account_id: int, template_id: int, version: int) -> Version:
    """Raises TemplateNotFound."""
    row = await conn.fetchrow(
        f"""SELECT {_VERSION_COLUMNS} FROM template_versions v
            WHERE v.template_id = $1 AND v.version = $2 AND v.account_id = $3""",
        template_id,
        version,
        account_id,
    )
    if row is None:
        raise TemplateNotFound(f"This template has no version {version}.")
    return _version(row)


async def read_versions(conn: Connection, account_id: int, template_id: int, limit: int) -> list[Version]:
    """Newest first, without their bodies."""
    rows = await conn.fetch(
        """SELECT template_id, version, subject, preheader, NULL AS html, NULL AS text, variables, warnings, created_at
           FROM template_versions WHERE template_id = $1 AND account_id = $2 ORDER BY version DESC LIMIT $3""",
        template_id,
        account_id,
        limit,
    )
    return list(map(_version, rows))


async def read_page(conn: Connection, account_id: int, limit: int, offset: int, after_id: int | None) -> list[Template]:
    """Newest first."""
    rows = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM templates WHERE account_id = $1 AND ($2::bigint IS NULL OR id < $2)
            ORDER BY id DESC LIMIT $3 OFFSET $4""",
        account_id,
        after_id,
        limit,
        offset,
    )
    return [Template(**row) for row in rows]


async def count_templates(conn: Connection, account_id: int) -> int:
    """How many templates the account has."""
    total: int = await conn.fetchval("SELECT count(*) FROM templates WHERE account_id = $1", account_id)
    return total


async def update_template(conn: Connection, template: Template, name: str, version: int) -> Template:
    """Sets the name and the newest version of a template that the caller has locked."""
    row = await fetch_one(
        conn,
        f"""UPDATE templates SET name = $3, version = $4, updated_at = now() WHERE id = $1 AND account_id = $2
            RETURNING {_COLUMNS}""",
        template.id,
        template.account_id,
        name,
        version,
    )
    return Template(**row)


async def delete_template(conn: Connection, account_id: int, template_id: int) -> None:
    """Its versions go with it. Raises TemplateNotFound."""
    _found(
        await conn.fetchrow(
            f"DELETE FROM templates WHERE id = $1 AND account_id = $2 RETURNING {_COLUMNS}", template_id, account_id
        )
    )


async def find_versions(conn: Connection, account_id: int, refs: Sequence[Ref]) -> dict[Ref, Version]:
    """What the refs name, in one query; those that name nothing are missing."""
    rows = await conn.fetch(
        f"""SELECT r.n, {_VERSION_COLUMNS}
            FROM unnest($2::bigint[], $3::text[], $4::integer[]) WITH ORDINALITY AS r(id, name, version, n)
            JOIN templates t ON t.account_id = $1 AND (t.id = r.id OR t.name = r.name)
            JOIN template_versions v
              ON v.template_id = t.id AND v.account_id = $1 AND v.version = coalesce(r.version, t.version)""",
        account_id,
        [ref.id for ref in refs],
        [ref.name for ref in refs],
        [ref.version for ref in refs],
    )
    return {refs[row["n"] - 1]: _version(row) for row in rows}


def _found(row: Any) -> Template:
    if row is None:
        raise TemplateNotFound
    return Template(**row)


def _version(row: Any) -> Version:
    return Version(
        template_id=row["template_id"],
        version=row["version"],
        content=Content(row["subject"], row["preheader"], row["html"], row["text"]),
        variables=row["variables"],
        warnings=row["warnings"],
        created_at=row["created_at"],
    )
