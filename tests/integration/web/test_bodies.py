"""What a body may be, judged on a real server: strict JSON, types and codings, sizes before buffering, header injection."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mailrail.accounts.model import Scope
from mailrail.web import admission
from mailrail.web.admission import BODY_MAX_BYTES
from tests.support.api import Answer, Api, Tenant, assert_error_form

PATH = "/api/v1/contacts"
JSON = {"Content-Type": "application/json"}
DEEP = 32


async def post_bytes(tenant: Tenant, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    """A POST of a contact as these bytes."""
    return await tenant.api.call("POST", PATH, tenant.key, data=body, headers=JSON | (headers or {}))


def contact(member: bytes) -> bytes:
    """The JSON of a contact that would be fine but for one member."""
    return b'{"email": "a@example.com", ' + member + b"}"


def field(value: bytes) -> bytes:
    """The JSON of a contact with this value as a custom field, where any JSON is welcome."""
    return contact(b'"customFields": {"x": ' + value + b"}")


# What no two parsers may read in two ways, or is no JSON at all (RFC 8259, RFC 7493): 400.
UNREADABLE = {
    "half an object": b"{",
    "an array": b"[]",
    "a string": b'"email"',
    "a number": b"1",
    "null": b"null",
    "blank": b"  ",
    "no quotes": b"{email: 1}",
    "single quotes": b"{'email': 'a@example.com'}",
    "comma at the end": contact(b'"name": "x",'),
    "comma twice": contact(b',"name": "x"'),
    "comma missing": b'{"email": "a@example.com" "name": "x"}',
    "colon missing": b'{"email" "a@example.com"}',
    "comment": contact(b'/* */ "name": "x"'),
    "line comment": contact(b'"name": "x" // x\n'),
    "more behind it": b'{"email": "a@example.com"} x',
    "two objects": b'{"email": "a@example.com"}{"email": "b@example.com"}',
    "a second line": b'{"email": "a@example.com"}\n{"email": "b@example.com"}',
    "NUL behind it": b'{"email": "a@example.com"}\x00',
    "byte order mark": b'\xef\xbb\xbf{"email": "a@example.com"}',
    "UTF-16": '{"email": "a@example.com"}'.encode("utf-16"),
    "UTF-32": '{"email": "a@example.com"}'.encode("utf-32-le"),
    "Latin-1": contact('"name": "é"'.encode("latin-1")),
    "not UTF-8": contact(b'"name": "\xff"'),
    "overlong UTF-8": contact(b'"name": "\xc0\xaf"'),
    "UTF-8 of a surrogate": contact(b'"name": "\xed\xa0\x80"'),
    "UTF-8 beyond Unicode": contact(b'"name": "\xf4\x90\x80\x80"'),
    "UTF-8 cut short": b'{"name": "\xc3',
    "high surrogate alone": contact(b'"name": "\\ud800"'),
    "low surrogate alone": contact(b'"name": "\\udc00"'),
    "surrogates swapped": contact(b'"name": "\\udc00\\ud800"'),
    "surrogate and letter": contact(b'"name": "\\ud800\\u0041"'),
    "surrogate in a key": contact(b'"\\ud800": 1'),
    "surrogate deep down": field(b'[{"a": "\\ud800"}]'),
    "unknown escape": contact(b'"name": "\\x41"'),
    "escape cut short": contact(b'"name": "\\u12"'),
    "line break in a string": contact(b'"name": "a\nb"'),
    "NUL in a string": contact(b'"name": "a\x00b"'),
    "tab in a string": contact(b'"name": "a\tb"'),
    "string without end": b'{"email": "a@example.com',
    "NaN": field(b"NaN"),
    "nan": field(b"nan"),
    "Infinity": field(b"Infinity"),
    "minus Infinity": field(b"-Infinity"),
    "1e999": field(b"1e999"),
    "-1e999": field(b"-1e999"),
    "2^63": field(b"9223372036854775808"),
    "2^64": field(b"18446744073709551616"),
    "less than -2^63": field(b"-9223372036854775809"),
    "5,000 digits": field(b"9" * 5000),
    "leading zero": field(b"01"),
    "leading plus": field(b"+1"),
    "no digit before the point": field(b".5"),
    "no digit behind the point": field(b"1."),
    "exponent without digits": field(b"1e"),
    "hexadecimal": field(b"0x10"),
    "digits of another script": field("١".encode()),
    "True": field(b"True"),
    "undefined": field(b"undefined"),
    "a key twice": b'{"email": "a@example.com", "email": "b@example.com"}',
    "a key twice, escaped": b'{"email": "a@example.com", "\\u0065mail": "b@example.com"}',
    "a key twice, same value": contact(b'"name": "x", "name": "x"'),
    "a key twice deep down": field(b'[{"a": 1, "b": 2, "a": 3}]'),
    "too deep by objects": b'{"x":' * (DEEP + 1) + b"1" + b"}" * (DEEP + 1),
    "too deep by arrays": field(b"[" * DEEP + b"]" * DEEP),
    "very deep": b"[" * 500_000,
    "very deep objects": b'{"a":' * 100_000,
    "form": b"email=a%40example.com",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_what_is_not_strict_json_is_refused(tenant: Tenant, body: bytes) -> None:
    answer = await post_bytes(tenant, body)
    assert (answer.status, answer.code) == (400, "body_unreadable")
    assert_error_form(answer)
    assert (await tenant.get(PATH)).body["total"] == 0


# Readable, and wrong: 422 with the field's name.
INVALID = {
    "no body": (b"", "email"),
    "wrong type": (b'{"email": 1}', "email"),
    "list for a string": (b'{"email": ["a@example.com"]}', "email"),
    "object for a string": (b'{"email": {"$ne": ""}}', "email"),
    "escaped NUL": (contact(b'"name": "\\u0000"'), "name"),
    "escaped NUL deep down": (field(b'["\\u0000"]'), "customFields.x"),
    "escaped NUL in a key": (field(b'{"\\u0000": 1}'), "customFields.x"),
    "unknown field": (contact(b'"nmae": "x"'), "nmae"),
    "prototype": (contact(b'"__proto__": {"status": "x"}'), "__proto__"),
    "empty key": (contact(b'"": 1'), ""),
    "number for a list": (contact(b'"tags": 1'), "tags"),
    "null in a list": (contact(b'"tags": [null]'), "tags[0]"),
    "true for a string": (contact(b'"name": true'), "name"),
    "text too long": (contact(b'"name": "' + b"x" * 201 + b'"'), "name"),
}


@pytest.mark.parametrize(("body", "param"), INVALID.values(), ids=INVALID.keys())
async def test_what_is_readable_and_wrong_names_its_field(tenant: Tenant, body: bytes, param: str) -> None:
    answer = await post_bytes(tenant, body)
    assert (answer.status, answer.code) == (422, "fields_invalid")
    assert param in answer.params
    assert_error_form(answer)
    assert (await tenant.get(PATH)).body["total"] == 0


@pytest.mark.parametrize(
    "member",
    [
        b'"name": "\xf0\x9f\x98\x80 \\ud83d\\ude00"',
        b'"customFields": {"a": 9223372036854775807, "b": -9223372036854775808, "c": 1.5e300, "d": -0, "e": 1e-999}',
        b'"customFields": {"a": ' + b"[" * (DEEP - 2) + b"]" * (DEEP - 2) + b"}",
        b'"customFields": {"a": "\xef\xbb\xbf: {\\"a\\": 1, \\"a\\": 2}"}',
        b'"name": null',
    ],
)
async def test_unusual_json_is_welcome(tenant: Tenant, member: bytes) -> None:
    answer = await post_bytes(tenant, b" \r\n\t" + contact(member) + b" \r\n\t")
    assert answer.status == 201, answer


# —— injection: no line of a header comes from a field ——————————————————————————————————————————————————————————————————

INJECTIONS = {
    "CRLF": "x\r\nBcc: victim@example.net",
    "LF": "x\nBcc: victim@example.net",
    "CR": "x\rBcc: victim@example.net",
    "folded": "x\r\n Bcc: victim@example.net",
    "empty line": "x\r\n\r\n<script>",
    "at the end": "x\r\n",
    "at the beginning": "\r\nx",
    "NUL": "x\x00y",
    "tab": "x\ty",
    "vertical tab": "x\x0by",
    "escape": "x\x1b[2Jy",
    "DEL": "x\x7fy",
    "NEL": "x\x85y",
    "C1": "x\x9by",
    "line separator": "x\u2028y",
    "paragraph separator": "x\u2029y",
}

HEADER_FIELDS: dict[str, tuple[str, Any]] = {
    "subject": ("/api/v1/campaigns", lambda text: {"subject": text}),
    "name of the sender": ("/api/v1/campaigns", lambda text: {"from": {"name": text, "email": "hi@acme.com"}}),
    "address of the sender": ("/api/v1/campaigns", lambda text: {"from": f"hi@acme.com{text}"}),
    "address in the sender": ("/api/v1/campaigns", lambda text: {"from": {"email": f"{text}@acme.com"}}),
    "replyTo": ("/api/v1/campaigns", lambda text: {"replyTo": f"hi@acme.com{text}"}),
    "replyTo in a list": ("/api/v1/campaigns", lambda text: {"replyTo": ["hi@acme.com", f"hi{text}@acme.com"]}),
    "preheader": ("/api/v1/campaigns", lambda text: {"preheader": text}),
    "name": ("/api/v1/campaigns", lambda text: {"name": text}),
    "tag": ("/api/v1/campaigns", lambda text: {"tags": [text]}),
    "recipient": ("/api/v1/contacts", lambda text: {"email": f"a@example.com{text}"}),
    "recipient's local part": ("/api/v1/contacts", lambda text: {"email": f"a{text}@example.com"}),
    "recipient's name": ("/api/v1/contacts", lambda text: {"name": text}),
    "recipient's first name": ("/api/v1/contacts", lambda text: {"firstName": text}),
    "recipient's last name": ("/api/v1/contacts", lambda text: {"lastName": text}),
    "recipient's tag": ("/api/v1/contacts", lambda text: {"tags": [text]}),
    "list": ("/api/v1/lists", lambda text: {"name": text}),
    "domain": ("/api/v1/domains", lambda text: {"domain": f"acme.net{text}"}),
}
FINE = {
    "/api/v1/campaigns": {"name": "N", "subject": "S", "content": "<p>x</p>", "from": "hi@acme.com"},
    "/api/v1/contacts": {"email": "a@example.com"},
    "/api/v1/lists": {},
    "/api/v1/domains": {},
}


@pytest.mark.parametrize(("path", "member"), HEADER_FIELDS.values(), ids=HEADER_FIELDS.keys())
async def test_control_characters_reach_no_header(tenant: Tenant, path: str, member: Any) -> None:
    await tenant.verify_domain()
    for name, text in INJECTIONS.items():
        answer = await tenant.post(path, FINE[path] | member(text))
        assert answer.status == 422, (name, answer)
        assert_error_form(answer)
    # The same field is welcome without them, so that it was they who were refused.
    assert 201 in [(await tenant.post(path, FINE[path] | member(text))).status for text in ("", "x")]


# —— types and codings ——————————————————————————————————————————————————————————————————————————————————————————————————


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/vnd.api+json",
        "application/merge-patch+json; a=b",
    ],
)
async def test_json_by_any_name_is_read(tenant: Tenant, content_type: str) -> None:
    assert (await post_bytes(tenant, contact(b'"name": "x"'), {"Content-Type": content_type})).status == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/jsonx",
        "application/json-seq",
        "text/html; x=application/json",
        "json",
        "",
    ],
)
async def test_another_type_is_told_what_to_send(tenant: Tenant, content_type: str) -> None:
    answer = await post_bytes(tenant, contact(b'"name": "x"'), {"Content-Type": content_type})
    assert (answer.status, answer.code) == (415, "media_type_refused")
    assert "Content-Type: application/json" in answer.body["error"]["message"]
    assert_error_form(answer)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
async def test_packed_bodies_are_refused(tenant: Tenant, coding: str) -> None:
    answer = await post_bytes(tenant, b"{}", {"Content-Encoding": coding})
    assert (answer.status, answer.code) == (415, "content_encoding_refused")
    assert_error_form(answer)


async def test_without_a_body_no_type_is_needed(api: Api, tenant: Tenant) -> None:
    answer = await api.call("POST", PATH, tenant.key, headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.params) == (422, {"email"})
    assert (await api.call("GET", PATH, tenant.key, headers={"Content-Type": "text/plain"})).status == 200


# —— sizes, and who is heard before a body is read ——————————————————————————————————————————————————————————————————————


class Raw:
    """A connection on which a test decides what is sent and when."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Some bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> bytes:
        """The head of the next answer, in lower case; it must come within 5 s."""
        async with asyncio.timeout(5):
            return (await self._reader.readuntil(b"\r\n\r\n")).lower()

    async def rest(self) -> bytes:
        """All that still comes until the server hangs up."""
        async with asyncio.timeout(5):
            return await self._reader.read()


@pytest.fixture
async def raw(api: Api) -> AsyncIterator[Raw]:
    """A fresh connection."""
    host, port = api.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield Raw(reader, writer)
    writer.close()


def head(key: str, *lines: str, path: str = PATH) -> bytes:
    """The head of a POST."""
    all_lines = (
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        *lines,
    )
    return "\r\n".join((*all_lines, "", "")).encode()


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(tenant: Tenant, raw: Raw) -> None:
    await raw.send(head(tenant.key, f"Content-Length: {BODY_MAX_BYTES + 1}"))
    assert (await raw.head()).startswith(b"http/1.1 413")
    assert b"body_too_large" in await raw.rest()


async def test_a_body_that_turns_out_too_large_is_refused(api: Api, tenant: Tenant) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(BODY_MAX_BYTES // 16)

    answer = await api.call("POST", PATH, tenant.key, data=chunks(), headers=JSON)
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert_error_form(answer)
    answer = await api.call("POST", PATH, tenant.key, data=io.BytesIO(bytes(BODY_MAX_BYTES + 1)), headers=JSON)
    assert answer.status == 413


async def test_the_largest_body_is_read(tenant: Tenant) -> None:
    body = contact(b'"name": "x"')
    answer = await post_bytes(tenant, body + b" " * (BODY_MAX_BYTES - len(body)))
    assert answer.status == 201


@pytest.mark.parametrize("length", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_a_stranger_is_refused_before_the_body_is_read(api: Api, raw: Raw, length: str) -> None:
    await raw.send(head("sk_live_x", length))
    assert (await raw.head()).startswith(b"http/1.1 401")


async def test_a_scope_is_checked_before_the_body_is_read(tenant: Tenant, raw: Raw) -> None:
    await raw.send(head(await tenant.new_key([Scope.STATS_READ]), "Content-Length: 1000000"))
    assert (await raw.head()).startswith(b"http/1.1 403")


async def test_who_asks_before_sending_is_told_to_go_on(tenant: Tenant, raw: Raw) -> None:
    body = contact(b'"name": "x"')
    await raw.send(head(tenant.key, f"Content-Length: {len(body)}", "Expect: 100-continue"))
    assert (await raw.head()).startswith(b"http/1.1 100")
    await raw.send(body)
    assert (await raw.head()).startswith(b"http/1.1 201")


@pytest.mark.parametrize(
    ("key", "lines", "status"),
    [
        ("sk_live_x", ("Content-Length: 1000",), 401),
        (None, (f"Content-Length: {BODY_MAX_BYTES + 1}",), 413),
        (None, ("Content-Length: 1000", "Content-Encoding: gzip"), 415),
    ],
)
async def test_who_asks_before_sending_is_refused_without_sending(
    tenant: Tenant, raw: Raw, key: str | None, lines: tuple[str, ...], status: int
) -> None:
    await raw.send(head(key or tenant.key, "Expect: 100-continue", *lines))
    refused = await raw.head()
    assert refused.startswith(f"http/1.1 {status}".encode())
    assert b"connection: close" in refused
    assert b"100 continue" not in await raw.rest()


async def test_a_refused_body_does_not_spoil_the_connection(tenant: Tenant, raw: Raw) -> None:
    body = contact(b'"name": "x"')
    await raw.send(head("sk_live_x", f"Content-Length: {len(body)}") + body)
    refused = await raw.head()
    assert refused.startswith(b"http/1.1 401")
    await raw.send(head(tenant.key, f"Content-Length: {len(body)}") + body)
    # What is left of the first answer is its body.
    assert b"http/1.1 201" in await raw.head()


async def test_a_body_that_comes_too_slowly_is_given_up(
    tenant: Tenant, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "BODY_TIMEOUT_S", 0.5 - BODY_MAX_BYTES / admission.BODY_BYTES_PER_SECOND_MIN)
    await raw.send(head(tenant.key, "Content-Length: 1000") + b'{"email": ')
    refused = await raw.head()
    assert refused.startswith(b"http/1.1 408")
    assert b"connection: close" in refused
    assert b"request_timeout" in await raw.rest()


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 10", "Content-Length: 11"),
        ("Content-Length: 10", "Transfer-Encoding: chunked"),
        ("Content-Length: -1",),
        ("Content-Length: 1_0",),
        ("Content-Length: x",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: xchunked",),
    ],
)
async def test_a_length_that_could_be_read_in_two_ways_is_refused(
    tenant: Tenant, raw: Raw, lines: tuple[str, ...]
) -> None:
    await raw.send(head(tenant.key, *lines) + b"{}")
    refused = await raw.head()
    assert refused.startswith(b"http/1.1 400")
    assert b"connection: close" in refused
