"""…/contacts/import, the same in both dialects."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any, TypedDict

from sanic.response import HTTPResponse

from mailrail.contacts.model import ListNotFound
from mailrail.db.pool import DATABASE_ERRORS
from mailrail.errors import IdempotencyKeyInUse, IdempotencyKeyReused, MailrailError
from mailrail.ids import Ids, Kind
from mailrail.imports import service, store
from mailrail.imports.form import read_body, read_options, values_of_texts
from mailrail.imports.model import (
    ColumnsInvalid,
    FormatUnknown,
    Import,
    ImportEnded,
    ImportNotFound,
    ImportOptions,
    ImportTooLarge,
    ImportUnreadable,
    TooManyImports,
)
from mailrail.imports.multipart import Form
from mailrail.imports.service import Upload
from mailrail.web.answers import answer
from mailrail.web.body import BodyUnreadable, decode, read_object
from mailrail.web.context import Request
from mailrail.web.fields import FieldError, Fields, FieldsInvalid
from mailrail.web.idempotency import REPLAYED_HEADER, read_owner
from mailrail.web.openapi import CSV, FORM, JSON, Query, operation
from mailrail.web.pages import PAGE_QUERY, page_answer, read_page
from mailrail.web.values import shown_time, shown_time_or_none

log = logging.getLogger(__name__)

FORMATS = {
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/csv": "csv",
    "application/json": "json",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
}
# What a file in a form is called, where its type says nothing.
SUFFIXES = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
DELIMITERS = {",": ",", ";": ";", "|": "|", "\t": "\t", "tab": "\t"}

OPTIONS = (
    Query("listId", "The list that the contacts join."),
    Query("tags", "Tags that they all get; several times, or with commas between them."),
    Query(
        "mapping",
        'Which column or key is which field, as JSON: {"Mail": "email", "Town": "customFields.town", "Age": null}. The fields '
        "are email, name, firstName, lastName, status, tags, tracking (in CSV true, yes, on, 1, false, no, off or 0), "
        "customFields and customFields.x.",
    ),
    Query("upsert", "Whether known contacts are updated; true unless it says false.", {"type": "boolean"}),
    Query(
        "status", "The status of those whose row says none.", {"type": "string", "enum": ["subscribed", "unsubscribed"]}
    ),
    Query("consent.source", "Where these people agreed to mail."),
    Query("consent.wording", "What they agreed to."),
    Query(
        "delimiter",
        "What separates the fields of a CSV file; else its first line tells.",
        {"type": "string", "enum": [*DELIMITERS]},
    ),
)


class ColumnAnswer(TypedDict):
    """A column of a CSV file and the field of a contact that it fills; null where it is left out."""

    column: str
    field: str | None


class ImportAnswer(TypedDict):
    """An import: `rowsDone` = created + updated + unchanged + skipped + duplicates + failed, `rows` all that were received.

    `skipped` rows belong to people who unsubscribed, bounced, complained or are suppressed, or who are known where `upsert`
    is false; an import never subscribes them again. Of `duplicates` the last row of an address counts.
    """

    id: str
    status: str
    reason: str | None
    format: str
    listId: str | None
    tags: list[str]
    upsert: bool
    columns: list[ColumnAnswer] | None
    bytesReceived: int
    rows: int
    rowsDone: int
    created: int
    updated: int
    unchanged: int
    skipped: int
    duplicates: int
    failed: int
    rowsPerSecond: int | None
    createdAt: str
    startedAt: str | None
    completedAt: str | None


class ImportsAnswer(TypedDict):
    """A page of imports."""

    imports: list[ImportAnswer]
    total: int
    page: int
    pages: int
    limit: int
    after: str | None


@operation(
    answers={202: ImportAnswer},
    reads=read_body,
    query=OPTIONS,
    also_reads=(*(kind for kind in FORMATS if kind != JSON), FORM),
    raises=(
        BodyUnreadable,
        ImportUnreadable,
        ImportTooLarge,
        FormatUnknown,
        FieldsInvalid,
        ColumnsInvalid,
        ListNotFound,
        TooManyImports,
        ImportEnded,
        IdempotencyKeyInUse,
        IdempotencyKeyReused,
    ),
    is_idempotent=True,
    example=(
        {
            "contacts": [{"email": "sarah@example.com", "firstName": "Sarah", "plan": "enterprise"}],
            "listId": "lst_2k7f8x0q4m9d3w6z1r5t8y0u2i",
            "tags": ["newsletter"],
        },
        None,
    ),
)
async def create(request: Request) -> HTTPResponse:
    """POST …/contacts/import: imports contacts, however many. They come as JSON, CSV or a form with a file; the answer comes when
    all are in.

    Options come as query, as fields of the form or beside `contacts` in JSON. Nothing is imported of an upload that is
    refused or breaks off.
    """
    owner = read_owner(request)
    upload = Upload(request.transaction, request.ctx.account.id, None if owner is None else owner.key)
    try:
        received, again = await receive(request, upload)
    except MailrailError as error:
        await upload.break_off(str(error))
        raise
    except BaseException:
        # The client went away, or the process goes down: what was stored must go in any case.
        await asyncio.shield(asyncio.create_task(upload.break_off("The upload broke off. Send it again.")))
        raise
    response = answer(dict(_shown(received, request.app.ctx.ids)), 202)
    if again:
        response.headers[REPLAYED_HEADER] = "true"
    return response


@operation(
    answers={200: ImportsAnswer},
    query=PAGE_QUERY,
    raises=(FieldsInvalid,),
)
async def page(request: Request) -> HTTPResponse:
    """GET …/contacts/import: imports, newest first."""
    ctx, account_id = request.app.ctx, request.ctx.account.id
    asked = read_page(request, Kind.IMPORT, ctx.ids)
    async with request.transaction() as conn:
        found = await service.page(conn, account_id, asked.limit, asked.offset, asked.after_id)
        total = await service.count(conn, account_id)
    return answer(page_answer("imports", [dict(_shown(one, ctx.ids)) for one in found], asked, total))


@operation(answers={200: ImportAnswer}, raises=(ImportNotFound,))
async def get(request: Request, import_id: str) -> HTTPResponse:
    """GET …/contacts/import/:id: how far an import is and what became of its rows."""
    ctx = request.app.ctx
    async with request.transaction() as conn:
        found = await service.get(conn, request.ctx.account.id, ctx.ids.find(Kind.IMPORT, import_id))
    return answer(dict(_shown(found, ctx.ids)))


@operation(answers={200: ImportAnswer}, raises=(BodyUnreadable, FieldsInvalid, ImportNotFound, ImportEnded))
async def cancel(request: Request, import_id: str) -> HTTPResponse:
    """POST …/contacts/import/:id/cancel: ends an import. What was merged stays, the rest is dropped."""
    ctx = request.app.ctx
    Fields(read_object(request)).finish()
    async with request.transaction() as conn:
        ended = await service.cancel(conn, request.ctx.account.id, ctx.ids.find(Kind.IMPORT, import_id))
    return answer(dict(_shown(ended, ctx.ids)))


@operation(answers={200: CSV}, raises=(ImportNotFound,))
async def page_errors(request: Request, import_id: str) -> HTTPResponse | None:
    """GET …/contacts/import/:id/errors: the rows that failed as CSV, with their number in the file and the reason.

    The header of a CSV file is row 1; blank lines do not count.
    """
    ctx, account_id = request.app.ctx, request.ctx.account.id
    async with request.transaction() as conn:
        found = await service.get(conn, account_id, ctx.ids.find(Kind.IMPORT, import_id))
    name = f"{ctx.ids.encode(Kind.IMPORT, found.id)}-errors.csv"
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"'}
    response = await request.respond(content_type="text/csv; charset=utf-8", headers=headers)
    await response.send(",".join(f'"{column}"' for column in store.ERROR_COLUMNS).encode() + b"\n")
    last: int | None = 0
    try:
        while last is not None:
            # No connection is held while a slow client reads.
            async with request.transaction() as conn:
                lines, last = await store.read_errors_csv(conn, account_id, found.id, last)
            if lines:
                await response.send(lines)
    except DATABASE_ERRORS as error:
        log.warning("%s: an error file broke off (%s)", request.ctx.request_id, type(error).__name__)
        # Sanic would end the answer in order, and half a list would look whole.
        transport: Any = request.transport
        transport.abort()
        return None
    await response.eof()
    return None


# —— an upload ——————————————————————————————————————————————————————————————————————————————————————————————————————————


async def receive(request: Request, upload: Upload) -> tuple[Import, bool]:
    """Takes the whole body; the import, and whether it was received before."""
    ids = request.app.ctx.ids
    texts = {name: [str(text) for text in request.args.getlist(name) or []] for name in request.args}
    delimiter = read_delimiter(texts.pop("delimiter", []))
    options = finished_options(values_of_texts(texts), ids)
    content_type = request.headers.get("content-type", "")
    body = read_bytes(request)
    kind = content_type.partition(";")[0].strip().lower()
    if kind == FORM:
        form = Form(content_type, body)
        await take_file(form, upload, delimiter)
        return await upload.finish(lambda: finished_options(values_of_texts(texts | form.texts), ids))
    if (upload_format := FORMATS.get(kind)) is None:
        raise FormatUnknown
    await upload.begin(upload_format, delimiter)
    checked = False
    async for data in body:
        await upload.take(data)
        # All options are known: better now than after half a gigabyte.
        checked = checked or upload.check_columns(options)
    return await upload.finish(lambda: options_beside(upload.envelope, values_of_texts(texts), ids))


async def take_file(form: Form, upload: Upload, delimiter: str | None) -> None:
    """Takes the one file of a form, and all its texts, before and behind it."""
    file = await form.next_file()
    if file is None:
        raise FieldsInvalid([FieldError("field_missing", "The form needs a file part with the contacts.", "file")])
    await upload.begin(format_of_file(file.name, file.content_type), delimiter)
    async for data in file.chunks():
        await upload.take(data)
    if await form.next_file() is not None:
        raise FieldsInvalid([FieldError("list_too_long", "Send one file at a time.", "file")])


async def read_bytes(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ImportTooLarge."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise BodyUnreadable(f"Send the body as it is: the content encoding {encoding[:40]!r} is not accepted.")
    most = request.app.ctx.settings.import_max_bytes
    received = 0
    too_large = ImportTooLarge(f"An import has at most {most} bytes. Split the file.")
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > most:
        raise too_large
    # Sanic declares only what its two protocols share.
    stream: Any = request.stream
    while stream.request_body:
        data = await stream.read()
        received += len(data or b"")
        if received > most:
            raise too_large
        if data:
            yield data


def read_delimiter(texts: list[str]) -> str | None:
    """The delimiter that the query names. Raises FieldsInvalid."""
    if not texts:
        return None
    if texts[-1] not in DELIMITERS:
        message = "delimiter must be one of a comma, a semicolon, a bar and tab."
        raise FieldsInvalid([FieldError("value_unknown", message, "delimiter")])
    return DELIMITERS[texts[-1]]


def format_of_file(name: str, content_type: str) -> str:
    """What a file in a form is written in: its type tells, else the end of its name, else it is CSV."""
    known = FORMATS.get(content_type.partition(";")[0].strip().lower())
    dot = name.rfind(".")
    return known or SUFFIXES.get(name[dot:].lower() if dot >= 0 else "", "csv")


def options_beside(envelope: bytes, values: dict[str, Any], ids: Ids) -> ImportOptions:
    """The options of the query and of the object around the contacts, whose word counts more."""
    beside = decode(envelope) if envelope else {}
    beside.pop("contacts", None)
    return finished_options(values | beside, ids)


def finished_options(values: dict[str, Any], ids: Ids) -> ImportOptions:
    """The options that the values say. Raises FieldsInvalid."""
    fields = Fields(values)
    options = read_options(fields, ids)
    fields.finish()
    return options


def _shown(one: Import, ids: Ids) -> ImportAnswer:
    counts = asdict(one.counts)
    targets = None if one.columns is None else one.columns.targets
    return {
        "id": ids.encode(Kind.IMPORT, one.id),
        "status": one.status,
        "reason": one.reason,
        "format": one.format,
        "listId": ids.encode_optional(Kind.LIST, one.options.list_id),
        "tags": one.options.tags,
        "upsert": one.options.upsert,
        "columns": None if targets is None else [{"column": name, "field": target} for name, target in targets],
        "bytesReceived": one.bytes_received,
        "rows": one.rows_received,
        "rowsDone": one.counts.rows,
        "created": counts["created"],
        "updated": counts["updated"],
        "unchanged": counts["unchanged"],
        "skipped": counts["skipped"],
        "duplicates": counts["doubled"],
        "failed": counts["failed"],
        "rowsPerSecond": one.rows_per_second,
        "createdAt": shown_time(one.created_at),
        "startedAt": shown_time_or_none(one.started_at),
        "completedAt": shown_time_or_none(one.completed_at),
    }
