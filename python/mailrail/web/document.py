"""The OpenAPI 3.1 document, made once at the start: paths and rights from the table of routes, the rest from their operations, the
forms that read bodies and the one table of errors. Nothing in it is written twice.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_args, get_type_hints, is_typeddict

import msgspec

from mailrail import __version__
from mailrail.accounts.model import KeyInvalid, KeyMissing, ScopeMissing
from mailrail.errors import IdempotencyKeyInUse, IdempotencyKeyReused, MailrailError, StartError
from mailrail.ids import Ids, Kind
from mailrail.web.admission import ContentEncodingRefused, MediaTypeRefused
from mailrail.web.auth import PUBLIC
from mailrail.web.body import BodyUnreadable
from mailrail.web.errors import OF_THE_SERVER, STATUS, ErrorAnswer
from mailrail.web.fields import FieldsInvalid
from mailrail.web.glossary import explained
from mailrail.web.idempotency import HEADER, KEY_MAX_CHARS, REPLAYED_HEADER
from mailrail.web.limits import RateLimited
from mailrail.web.openapi import JSON, Answer, Operation, Query
from mailrail.web.recorder import Schema, body_schema, nullable
from mailrail.web.route import Route

DIALECTS = {"api/v1": "", "v1/mail": "mail_"}
READS_BODY = ("POST", "PUT", "PATCH")
# `GET …/contacts/:id:`, with which the docstring of a handler begins.
ADDRESS = re.compile(r"(GET|POST|PUT|PATCH|DELETE) \S*[^\s:,.][:,.]? *")
PARAMETER = re.compile(r"<(\w+)(?::\w+)?>")
KINDS = {f"{kind.name.lower()}_id": kind for kind in Kind}

INTRODUCTION = """Send emails, manage contacts, verify domains and track delivery. Every request carries an API key as
`Authorization: Bearer sk_live_…`; mail of a key that begins with `sk_test_` reaches nobody. The same things can be done in two
dialects, `/api/v1` and `/v1/mail`, and have the same ids in both. Each operation shows its price as `x-price`; an account may
have one of its own, which the operation `pricing` tells. Errors have one form, described at `/docs/errors`."""

HEADERS: Mapping[str, Schema] = {
    "X-Request-Id": {"description": "Under this id our log has the request.", "schema": {"type": "string"}},
    "RateLimit-Limit": {
        "description": "Requests a minute of the plan; not sent for a plan without limit.",
        "schema": {"type": "integer"},
    },
    "RateLimit-Remaining": {"description": "Requests left in this minute.", "schema": {"type": "integer"}},
    "RateLimit-Reset": {"description": "Seconds until the minute is over.", "schema": {"type": "integer"}},
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}},
    REPLAYED_HEADER: {
        "description": "`true` where this is the kept answer to an earlier request with the same Idempotency-Key.",
        "schema": {"const": "true"},
    },
}


def make_document(routes: Sequence[Route], ids: Ids, url: str) -> dict[str, Any]:
    """The document of an installation at `url`. Raises StartError for a route that says nothing of itself."""
    operations = list(document_operations(routes, ids))
    paths: dict[str, Any] = {}
    for route, method, described in operations:
        paths.setdefault(shown_path(route.path), {})[method.lower()] = described
    shared = share_refusals([described for _, _, described in operations])
    return {
        "openapi": "3.1.0",
        "info": {"title": "mailrail", "version": __version__, "description": " ".join(INTRODUCTION.split())},
        "servers": [{"url": url}],
        "tags": [{"name": noun} for noun in dict.fromkeys(described["tags"][0] for _, _, described in operations)],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key. Each operation names the scope that the key needs.",
                }
            },
            "schemas": answer_schemas(route.operation for route in routes),
            "responses": shared,
            "headers": HEADERS,
            "parameters": {"IdempotencyKey": IDEMPOTENCY_KEY},
        },
    }


def document_operations(routes: Iterable[Route], ids: Ids) -> Iterator[tuple[Route, str, dict[str, Any]]]:
    """Each route with each of its methods but HEAD, which answers what GET does, without the body."""
    for route in routes:
        for method in route.methods.split():
            if method != "HEAD":
                yield route, method, describe(route, method, ids)


def describe(route: Route, method: str, ids: Ids) -> dict[str, Any]:
    """One operation object."""
    operation = route.operation
    summary, description = words_of(route.handler)
    described: dict[str, Any] = {
        "operationId": operation_id(route),
        "tags": [noun_of(route.path)],
        "summary": summary,
        **({"description": description} if description else {}),
        "x-price": operation.price,
        "parameters": [*path_parameters(route), *map(query_parameter, operation.query)],
        "responses": {**refusals(route, method), **answers(route, method)},
    }
    described["responses"] = dict(sorted(described["responses"].items()))
    if is_keyed(route):
        described["security"] = [{"apiKey": [str(route.access)]}]
    if keeps_answers(route, method):
        described["parameters"].append({"$ref": "#/components/parameters/IdempotencyKey"})
    if method in READS_BODY and (body := request_body(route, ids)):
        described["requestBody"] = body
    return described


# —— words ——————————————————————————————————————————————————————————————————————————————————————————————————————————————


def words_of(handler: object) -> tuple[str, str]:
    """Summary and description: the first sentence of the docstring, without its address, and the others."""
    text = " ".join((handler.__doc__ or "").split())
    text = ADDRESS.sub("", text, count=1)
    first, _, rest = text.partition(". ")
    return first[:1].upper() + first[1:].removesuffix("."), rest


def operation_id(route: Route) -> str:
    """The room and the verb, as `contacts_create`; those of /v1/mail begin with `mail_`."""
    handler: Any = route.handler
    room = handler.__module__.removeprefix("mailrail.").removeprefix("mail_v1.").partition(".")[0]
    prefix = next((prefix for dialect, prefix in DIALECTS.items() if route.path.startswith(f"/{dialect}/")), "")
    return f"{prefix}{room}_{handler.__name__}"


def noun_of(path: str) -> str:
    """What a path is about: its first word behind the dialect."""
    for dialect in DIALECTS:
        if path.startswith(f"/{dialect}/"):
            return path.removeprefix(f"/{dialect}/").partition("/")[0]
    return "public"


def shown_path(path: str) -> str:
    """`/api/v1/contacts/{contact_id}`."""
    return PARAMETER.sub(r"{\1}", path)


# —— what is asked ——————————————————————————————————————————————————————————————————————————————————————————————————————

IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "description": "Makes repeating the request safe: for 24 hours the same key gets the same answer, and nothing happens twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARS, "pattern": "^[!-~]+$"},
}


def path_parameters(route: Route) -> list[dict[str, Any]]:
    """Ids and tokens in the path."""
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            **({"description": f"An id as `{kind}_…`."} if (kind := KINDS.get(name)) else {}),
        }
        for name in PARAMETER.findall(route.path)
    ]


def query_parameter(query: Query) -> dict[str, Any]:
    """One parameter of the query."""
    return {"name": query.name, "in": "query", "description": query.description, "schema": query.schema}


def request_body(route: Route, ids: Ids) -> dict[str, Any] | None:
    """What the form of the route reads; an empty object where it has none."""
    operation = route.operation
    content: dict[str, Any] = {}
    if is_keyed(route):
        schema = empty_object() if operation.reads is None else body_schema(operation.reads, ids)
        schema = partial(schema) if operation.is_partial else schema
        content[JSON] = {
            "schema": explained(schema, route.path.rpartition("/")[2]),
            **({"example": operation.example[0]} if operation.example else {}),
        }
    content |= {media_type: {} for media_type in operation.also_reads}
    if not content:
        return None
    return {"content": content, "required": "required" in content.get(JSON, {}).get("schema", {})}


def partial(schema: Schema) -> Schema:
    """The object with nothing required, down to its nested ones; null clears what may be missing."""
    required = schema.get("required", ())
    loose = {
        name: partial(inner) if "properties" in inner else inner if name in required else nullable(inner)
        for name, inner in schema.get("properties", {}).items()
    }
    demands = ("required", "anyOf", "allOf")
    return {**{name: value for name, value in schema.items() if name not in demands}, "properties": loose}


def empty_object() -> Schema:
    """Nothing, or an object without fields."""
    return {"type": "object", "properties": {}, "additionalProperties": False}


# —— what is answered ———————————————————————————————————————————————————————————————————————————————————————————————————


def answer_schemas(operations: Iterable[Operation]) -> dict[str, Schema]:
    """Schemas of all TypedDicts that operations answer with, and of those within."""
    found = [kind for operation in operations for kinds in operation.answers.values() for kind in parts_of(kinds)]
    typed = dict.fromkeys(kind for kind in found if isinstance(kind, type))
    names = Counter(kind.__name__ for kind in written_kinds((*typed, ErrorAnswer)))
    if doubled := sorted(name for name, count in names.items() if count > 1):
        raise StartError(f"two answers have the name {doubled[0]}: the document needs one for each")
    _, schemas = msgspec.json.schema_components([*typed, ErrorAnswer], ref_template="#/components/schemas/{name}")
    for kind in written_kinds((*typed, ErrorAnswer)):
        schema = schemas[kind.__name__]
        # In the order in which they are written; msgspec sorts them.
        schema["properties"] = {name: schema["properties"][name] for name in get_type_hints(kind)}
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
    return schemas


def written_kinds(hints: Iterable[Any]) -> set[type]:
    """All TypedDicts in these types."""
    found: set[type] = set()
    waiting = list(hints)
    for hint in waiting:
        if is_typeddict(hint) and hint not in found:
            found.add(hint)
            waiting += get_type_hints(hint).values()
        else:
            waiting += get_args(hint)
    return found


def answers(route: Route, method: str) -> dict[str, Any]:
    """The answers that are no errors, and those errors that have a form of their own."""
    operation = route.operation
    responses = {}
    usual = next(iter(operation.answers))
    for status, kinds in operation.answers.items():
        content: dict[str, Any] = {}
        for kind in parts_of(kinds):
            if isinstance(kind, str):
                content[kind] = {}
            else:
                content[JSON] = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}
                if status == usual and operation.example and operation.example[1] is not None:
                    content[JSON]["example"] = operation.example[1]
        replayed = keeps_answers(route, method) and status < 300
        responses[str(status)] = {
            "description": description_of(kinds, status),
            "headers": header_references(route, *((REPLAYED_HEADER,) if replayed else ())),
            **({"content": content} if content else {}),
        }
    return responses


def description_of(kinds: Answer, status: int) -> str:
    """The words of the answer's class, else of its status."""
    words = [" ".join((kind.__doc__ or "").split()) for kind in parts_of(kinds) if isinstance(kind, type)]
    return words[0] if words else HTTPStatus(status).phrase


def parts_of(kinds: Answer) -> tuple[Any, ...]:
    """An answer may come in several forms."""
    return kinds if isinstance(kinds, tuple) else () if kinds is None else (kinds,)


def refusals(route: Route, method: str) -> dict[str, Any]:
    """All errors that the route may end in, by status, with their codes."""
    told: dict[int, dict[str, str]] = {}
    for kind in (*common_errors(route, method), *route.operation.raises):
        meaning = (kind.__doc__ or "").strip().splitlines()[0]
        told.setdefault(STATUS[kind.code], {})[kind.code] = meaning
    for status in server_errors(route, method):
        code, meaning = OF_THE_SERVER[status]
        told.setdefault(status, {})[code] = meaning
    return {
        str(status): {
            "description": " ".join(f"`{code}`: {meaning}" for code, meaning in sorted(codes.items())),
            "headers": header_references(route, *(("Retry-After",) if status in (429, 503) else ())),
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}},
        }
        for status, codes in told.items()
    }


def share_refusals(operations: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Most operations refuse in the same words: these become components, and stand in the operations as references."""
    by_status: dict[str, list[dict[str, Any]]] = {}
    for described in operations:
        for status in described["responses"]:
            if int(status) >= 400:
                by_status.setdefault(status, []).append(described["responses"])
    shared = {}
    for status, places in by_status.items():
        told = [json.dumps(responses[status]) for responses in places]
        usual = max(told, key=told.count)
        shared[f"Error{status}"] = json.loads(usual)
        for responses, text in zip(places, told, strict=True):
            if text == usual:
                responses[status] = {"$ref": f"#/components/responses/Error{status}"}
    return shared


def common_errors(route: Route, method: str) -> Iterator[type[MailrailError]]:
    """Errors that come from what all routes share."""
    if is_keyed(route):
        yield from (KeyMissing, KeyInvalid, ScopeMissing, RateLimited)
        if method in READS_BODY:
            yield from (BodyUnreadable, MediaTypeRefused, ContentEncodingRefused, FieldsInvalid)
        elif route.operation.query:
            yield FieldsInvalid
        if keeps_answers(route, method):
            yield from (IdempotencyKeyInUse, IdempotencyKeyReused)


def server_errors(route: Route, method: str) -> Iterator[int]:
    """Statuses by which the server itself refuses."""
    if PARAMETER.search(route.path):
        yield 404
    if method in READS_BODY:
        yield from (400, 408, 413)
    if is_keyed(route):
        yield 503


def header_references(route: Route, *more: str) -> dict[str, Any]:
    """Headers of an answer."""
    limits = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset") if is_keyed(route) else ()
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *limits, *more)}


def is_keyed(route: Route) -> bool:
    """Whether it asks for a key."""
    return route.access != PUBLIC


def keeps_answers(route: Route, method: str) -> bool:
    """Whether it heeds an Idempotency-Key, as `app.add_route` has it."""
    return method == "POST" and is_keyed(route)
