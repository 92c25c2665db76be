"""The verbs of stored templates. Each runs in the caller's transaction."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from mailrail import _core
from mailrail.accounts import service as accounts
from mailrail.db.pool import Connection
from mailrail.templates import store
from mailrail.templates.model import (
    TEMPLATES_MAX,
    VERSIONS_MAX,
    Content,
    Inspection,
    Ref,
    Template,
    TemplateExists,
    TemplateInvalid,
    TemplateLimitReached,
    TemplateNotFound,
    TemplateVersionChanged,
    Verdict,
    Version,
)


async def create(conn: Connection, account_id: int, name: str, content: Content) -> tuple[Template, Version]:
    """A template at version 1. Raises TemplateInvalid, TemplateExists, TemplateLimitReached."""
    found, warnings = _checked(content)
    await accounts.lock_account(conn, account_id)
    await _refuse_taken(conn, account_id, name)
    if await store.count_templates(conn, account_id) >= TEMPLATES_MAX:
        raise TemplateLimitReached(f"An account has at most {TEMPLATES_MAX} templates. Delete one first.")
    template = await store.insert_template(conn, account_id, name)
    return template, await store.insert_version(conn, template, content, found, warnings)


async def get(conn: Connection, account_id: int, template_id: int) -> tuple[Template, Version]:
    """The template and its newest version. Raises TemplateNotFound."""
    template = await store.read_template(conn, account_id, template_id)
    return template, await store.read_version(conn, account_id, template_id, template.version)


async def get_version(conn: Connection, account_id: int, template_id: int, number: int | None) -> Version:
    """Any of its versions; None is one that there cannot be. Raises TemplateNotFound."""
    await store.read_template(conn, account_id, template_id)
    if number is None:
        raise TemplateNotFound("A version is a whole number from 1.")
    return await store.read_version(conn, account_id, template_id, number)


async def versions(conn: Connection, account_id: int, template_id: int, limit: int) -> list[Version]:
    """Newest first, without html and text. Raises TemplateNotFound."""
    await store.read_template(conn, account_id, template_id)
    return await store.read_versions(conn, account_id, template_id, limit)


async def page(
    conn: Connection, account_id: int, limit: int, offset: int = 0, after_id: int | None = None
) -> list[Template]:
    """Newest first."""
    return await store.read_page(conn, account_id, limit, offset, after_id)


async def count(conn: Connection, account_id: int) -> int:
    """How many templates the account has."""
    return await store.count_templates(conn, account_id)


async def change(
    conn: Connection,
    account_id: int,
    template_id: int,
    name: str | None,
    parts: Mapping[str, Any],
    expected: int | None = None,
) -> tuple[Template, Version]:
    """Gives it another name, and a new version where `parts` make its content another one. `expected` is the version that
    they were made from.

    Raises TemplateNotFound, TemplateVersionChanged, TemplateInvalid, TemplateExists, TemplateLimitReached.
    """
    if name is not None:
        # Names are given under this lock; the template's comes after it, as for whoever gives one.
        await accounts.lock_account(conn, account_id)
    template = await store.read_template(conn, account_id, template_id, lock=True)
    if expected not in (None, template.version):
        raise TemplateVersionChanged(
            f"The template is at version {template.version}, not {expected}. Read it again and repeat the change."
        )
    if name is not None and name != template.name:
        await _refuse_taken(conn, account_id, name)
        template = await store.update_template(conn, template, name, template.version)
    # Only now that it is locked: nobody adds a version meanwhile.
    newest = await store.read_version(conn, account_id, template_id, template.version)
    content = dataclasses.replace(newest.content, **parts)
    if content == newest.content:
        return template, newest
    found, warnings = _checked(content)
    if template.version >= VERSIONS_MAX:
        raise TemplateLimitReached(f"A template has at most {VERSIONS_MAX} versions. Make a new template.")
    template = await store.update_template(conn, template, template.name, template.version + 1)
    return template, await store.insert_version(conn, template, content, found, warnings)


async def delete(conn: Connection, account_id: int, template_id: int) -> None:
    """With all versions; what was made of them keeps its copy. Raises TemplateNotFound."""
    await store.delete_template(conn, account_id, template_id)


async def preview(
    conn: Connection, account_id: int, template_id: int, number: int | None, variables: Mapping[str, Any]
) -> tuple[Version, Content]:
    """What a mail of the template says, by default of its newest version. Raises TemplateNotFound, TemplateInvalid."""
    template = await store.read_template(conn, account_id, template_id)
    version = await store.read_version(conn, account_id, template_id, number or template.version)
    found = inspect(version.content, variables)
    _refuse(found.errors + found.failures)
    return version, found.rendered


async def find(conn: Connection, account_id: int, refs: Iterable[Ref]) -> dict[Ref, Version]:
    """What mails name, all at once; refs that name nothing are missing."""
    return await store.find_versions(conn, account_id, list(dict.fromkeys(refs)))


async def find_one(conn: Connection, account_id: int, ref: Ref) -> Version:
    """What a campaign names in its field `template`. Raises TemplateNotFound."""
    found = await store.find_versions(conn, account_id, [ref])
    if ref not in found:
        error = TemplateNotFound()
        error.param = "template"
        raise error
    return found[ref]


def try_out(content: Content, variables: Mapping[str, Any] | None) -> Verdict:
    """What would become of the content, which is not stored: as at `create`, or with these values."""
    found = inspect(content, variables)
    if variables is None:
        return Verdict(found.errors, _warnings(found), found.variables)
    missing = [name for name in found.variables if name not in variables]
    warnings = [f"variables has no {name!r}: it is left empty in the mail." for name in missing]
    return Verdict(found.errors + found.failures, warnings, found.variables)


def inspect(content: Content, variables: Mapping[str, Any] | None = None) -> Inspection:
    """What the core finds in a content, tried with these values."""
    found = orjson.loads(
        _core.inspect_template(orjson.dumps({**dataclasses.asdict(content), "variables": variables or {}}))
    )
    return Inspection(
        variables=found["variables"],
        errors=list(map(_blame, found["errors"])),
        failures=list(map(_blame, found["failures"])),
        rendered=Content(subject=found["subject"], html=found["html"], text=found["text"]),
    )


async def _refuse_taken(conn: Connection, account_id: int, name: str) -> None:
    taken = await store.find_template(conn, account_id, name)
    if taken is not None:
        raise TemplateExists(taken)


def _checked(content: Content) -> tuple[Inspection, list[str]]:
    """What the core finds and what to warn of. Raises TemplateInvalid."""
    found = inspect(content)
    _refuse(found.errors)
    return found, _warnings(found)


def _warnings(found: Inspection) -> list[str]:
    """What may go wrong with a content that was tried without values."""
    return [f"Without variables no mail can be made of it: {error.part}: {error}" for error in found.failures]


def _refuse(errors: list[TemplateInvalid]) -> None:
    if errors:
        first, *others = errors
        raise TemplateInvalid(first.part, first.line, first.reason, others)


def _blame(told: dict[str, Any]) -> TemplateInvalid:
    return TemplateInvalid(told["part"], told["line"], told["reason"])
