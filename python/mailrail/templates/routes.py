"""…/templates, the same in both dialects."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from sanic.response import HTTPResponse

from mailrail.ids import Ids, Kind
from mailrail.templates import form, service
from mailrail.templates.model import (
    VERSIONS_MAX,
    VERSIONS_SHOWN,
    Template,
    TemplateExists,
    TemplateInvalid,
    TemplateLimitReached,
    TemplateNotFound,
    TemplateVersionChanged,
    Version,
)
from mailrail.web.answers import DeletedAnswer, answer
from mailrail.web.body import read_object
from mailrail.web.context import Request
from mailrail.web.fields import FieldError, Fields, FieldsInvalid
from mailrail.web.openapi import operation
from mailrail.web.pages import PAGE_QUERY, PageAnswer, page_answer, read_page
from mailrail.web.values import shown_time


class ListedTemplateAnswer(TypedDict):
    """A template in a list; `version` is its newest."""

    id: str
    name: str
    version: int
    createdAt: str
    updatedAt: str


class TemplatesAnswer(PageAnswer):
    """A page of templates."""

    templates: list[ListedTemplateAnswer]


class TemplateAnswer(ListedTemplateAnswer):
    """A template with the content of its newest version; `variables` are the names that it asks for."""

    subject: str | None
    preheader: str | None
    html: str | None
    text: str | None
    variables: list[str]
    warnings: list[str]


class ListedVersionAnswer(TypedDict):
    """A version in a list."""

    version: int
    subject: str | None
    createdAt: str


class TemplateDetailAnswer(TemplateAnswer):
    """A template with its newest versions; …/versions has all of them."""

    versions: list[ListedVersionAnswer]


class VersionsAnswer(TypedDict):
    """All versions of a template, newest first."""

    versions: list[ListedVersionAnswer]
    total: int


class VersionAnswer(ListedVersionAnswer):
    """One version of a template. It never changes."""

    id: str
    preheader: str | None
    html: str | None
    text: str | None
    variables: list[str]
    warnings: list[str]


class TemplateProblemAnswer(TypedDict):
    """What is wrong with one part of a template; `line` counts from 1 in that part, where it is known."""

    field: str
    line: int | None
    message: str


class VerdictAnswer(TypedDict):
    """Whether a template would be taken; `variables` are the names that it asks for."""

    valid: bool
    errors: list[TemplateProblemAnswer]
    warnings: list[str]
    variables: list[str]


class TemplatePreviewAnswer(TypedDict):
    """What a mail of the template says, without tracking."""

    id: str
    version: int
    subject: str | None
    html: str | None
    text: str | None


@operation(
    answers={201: TemplateAnswer},
    reads=form.read_template,
    raises=(TemplateInvalid, TemplateExists, TemplateLimitReached),
)
async def create(request: Request) -> HTTPResponse:
    """POST …/templates: stores a template at version 1. What cannot be compiled, or renders for nobody, is refused."""
    fields = Fields(read_object(request))
    name, content = form.read_template(fields)
    fields.finish()
    with _telling_everything():
        async with request.transaction() as conn:
            template, version = await service.create(conn, request.ctx.account.id, name, content)
    return answer(_shown(template, version, request.app.ctx.ids), 201)


@operation(answers={200: TemplatesAnswer}, query=PAGE_QUERY)
async def page(request: Request) -> HTTPResponse:
    """GET …/templates: all templates, newest first."""
    ids, account_id = request.app.ctx.ids, request.ctx.account.id
    asked = read_page(request, Kind.TEMPLATE, ids)
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id)
    return answer(page_answer("templates", [_listed(one, ids) for one in found], asked, total))


@operation(answers={200: TemplateDetailAnswer}, raises=(TemplateNotFound,))
async def get(request: Request, template_id: str) -> HTTPResponse:
    """GET …/templates/:id: one template with the content of its newest version."""
    ids, account_id = request.app.ctx.ids, request.ctx.account.id
    row_id = ids.find(Kind.TEMPLATE, template_id)
    async with request.transaction() as conn:
        template, version = await service.get(conn, account_id, row_id)
        versions = await service.versions(conn, account_id, row_id, VERSIONS_SHOWN)
    return answer(
        TemplateDetailAnswer(**_shown(template, version, ids), versions=[_listed_version(one) for one in versions])
    )


@operation(answers={200: VersionsAnswer}, raises=(TemplateNotFound,))
async def list_versions(request: Request, template_id: str) -> HTTPResponse:
    """GET …/templates/:id/versions: all versions of a template, newest first."""
    row_id = request.app.ctx.ids.find(Kind.TEMPLATE, template_id)
    async with request.transaction() as conn:
        versions = await service.versions(conn, request.ctx.account.id, row_id, VERSIONS_MAX)
    return answer(VersionsAnswer(versions=[_listed_version(one) for one in versions], total=len(versions)))


@operation(answers={200: VersionAnswer}, raises=(TemplateNotFound,))
async def get_version(request: Request, template_id: str, version: str) -> HTTPResponse:
    """GET …/templates/:id/versions/:version: one version of a template, which never changes."""
    row_id = request.app.ctx.ids.find(Kind.TEMPLATE, template_id)
    async with request.transaction() as conn:
        found = await service.get_version(conn, request.ctx.account.id, row_id, form.version_of(version))
    return answer(_shown_version(found, request.app.ctx.ids))


@operation(
    answers={200: TemplateAnswer},
    reads=form.read_changes,
    raises=(
        TemplateNotFound,
        TemplateVersionChanged,
        TemplateInvalid,
        TemplateExists,
        TemplateLimitReached,
    ),
)
async def change(request: Request, template_id: str) -> HTTPResponse:
    """PATCH …/templates/:id: changes what is given of a template. Null takes a part away. Another content is a new version,
    another name is not. With `ifVersion` nothing happens if somebody was faster.
    """
    fields = Fields(read_object(request))
    name, parts, expected = form.read_changes(fields)
    fields.finish()
    row_id = request.app.ctx.ids.find(Kind.TEMPLATE, template_id)
    with _telling_everything():
        async with request.transaction() as conn:
            template, version = await service.change(conn, request.ctx.account.id, row_id, name, parts, expected)
    return answer(_shown(template, version, request.app.ctx.ids))


@operation(answers={200: DeletedAnswer}, raises=(TemplateNotFound,))
async def delete(request: Request, template_id: str) -> HTTPResponse:
    """DELETE …/templates/:id: deletes a template with all its versions. Mail and campaigns made of it keep their copy."""
    ids = request.app.ctx.ids
    row_id = ids.find(Kind.TEMPLATE, template_id)
    async with request.transaction() as conn:
        await service.delete(conn, request.ctx.account.id, row_id)
    return answer(DeletedAnswer(id=ids.encode(Kind.TEMPLATE, row_id), deleted=True))


@operation(answers={200: VerdictAnswer}, reads=form.read_trial)
async def validate(request: Request) -> HTTPResponse:
    """POST …/templates/validate: tells whether a template would be taken. Nothing is stored. With `variables` it must also
    render with them.
    """
    fields = Fields(read_object(request))
    content, variables = form.read_trial(fields)
    fields.finish()
    verdict = service.try_out(content, variables)
    told: VerdictAnswer = {
        "valid": not verdict.errors,
        "errors": [{"field": one.part, "line": one.line, "message": one.reason} for one in verdict.errors],
        "warnings": verdict.warnings,
        "variables": verdict.variables,
    }
    return answer(told)


@operation(
    answers={200: TemplatePreviewAnswer},
    reads=form.read_preview,
    raises=(TemplateNotFound, TemplateInvalid),
)
async def preview(request: Request, template_id: str) -> HTTPResponse:
    """POST …/templates/:id/preview: renders a template with these `variables`. It is the newest version, or `version`."""
    ids = request.app.ctx.ids
    fields = Fields(read_object(request))
    number, variables = form.read_preview(fields)
    fields.finish()
    row_id = ids.find(Kind.TEMPLATE, template_id)
    with _telling_everything():
        async with request.transaction() as conn:
            version, mail = await service.preview(conn, request.ctx.account.id, row_id, number, variables)
    told: TemplatePreviewAnswer = {
        "id": ids.encode(Kind.TEMPLATE, row_id),
        "version": version.version,
        "subject": mail.subject,
        "html": mail.html,
        "text": mail.text,
    }
    return answer(told)


@contextmanager
def _telling_everything() -> Iterator[None]:
    """Of a template with several wrong parts, all of them are told."""
    try:
        yield
    except TemplateInvalid as error:
        if not error.others:
            raise
        wrong = (error, *error.others)
        raise FieldsInvalid(FieldError(one.code, str(one), one.part) for one in wrong) from error


# —— answers ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


def _listed(template: Template, ids: Ids) -> ListedTemplateAnswer:
    return {
        "id": ids.encode(Kind.TEMPLATE, template.id),
        "name": template.name,
        "version": template.version,
        "createdAt": shown_time(template.created_at),
        "updatedAt": shown_time(template.updated_at),
    }


def _shown(template: Template, newest: Version, ids: Ids) -> TemplateAnswer:
    content = newest.content
    return {
        **_listed(template, ids),
        "subject": content.subject,
        "preheader": content.preheader,
        "html": content.html,
        "text": content.text,
        "variables": newest.variables,
        "warnings": newest.warnings,
    }


def _listed_version(version: Version) -> ListedVersionAnswer:
    return {
        "version": version.version,
        "subject": version.content.subject,
        "createdAt": shown_time(version.created_at),
    }


def _shown_version(version: Version, ids: Ids) -> VersionAnswer:
    content = version.content
    return {
        **_listed_version(version),
        "id": ids.encode(Kind.TEMPLATE, version.template_id),
        "preheader": content.preheader,
        "html": content.html,
        "text": content.text,
        "variables": version.variables,
        "warnings": version.warnings,
    }
