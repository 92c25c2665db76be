"""Idempotency-Key: the effect of a request and its answer are kept in one transaction, so that repeating it changes nothing.

A twin that comes while the first is under way is told so (409); the same key with another request is a mistake (422); an
error undoes everything and keeps nothing, so that the next try runs anew. Answers are kept for 24 hours.
"""

import functools
import hashlib
from typing import Any

from sanic.response import HTTPResponse

from mailrail import failpoints
from mailrail.db.pool import transaction
from mailrail.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from mailrail.sealing import SealBroken
from mailrail.web import store
from mailrail.web.context import Handler, Request
from mailrail.web.fields import FieldError, FieldsInvalid
from mailrail.web.store import KeptAnswer, Owner

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
KEY_MAX_CHARS = 255


def keeping_answers(handler: Handler) -> Handler:
    """The handler of a POST; with an Idempotency-Key, its effect and its 2xx answer become one transaction."""

    @functools.wraps(handler)
    async def answer_once(request: Request, **parts: Any) -> HTTPResponse | None:
        owner = read_owner(request)
        if owner is None:
            return await handler(request, **parts)
        async with transaction(request.app.ctx.pool, owner.account_id) as conn:
            if not await store.try_lock_key(conn, owner):
                raise IdempotencyKeyInUse
            asked = fingerprint(request)
            if (kept := await store.find_answer(conn, owner)) is not None:
                return replay(request, owner, kept, asked)
            request.ctx.connection = conn
            try:
                response = await handler(request, **parts)
            finally:
                request.ctx.connection = None
            if response is not None and 200 <= response.status < 300:
                sealed = request.app.ctx.answers_seal.close(response.body or b"", owner.place)
                await store.insert_answer(conn, owner, KeptAnswer(asked, response.status, sealed))
            failpoints.hit("answer.kept")
        failpoints.hit("answer.committed")
        return response

    return answer_once


def read_owner(request: Request) -> Owner | None:
    """The Idempotency-Key of the request and whose it is; None without one. Raises FieldsInvalid."""
    sent = request.headers.getall(HEADER, [])
    if not sent:
        return None
    key = sent[0].strip(" \t")
    if len(sent) > 1 or not 1 <= len(key) <= KEY_MAX_CHARS or not all("!" <= character <= "~" for character in key):
        message = f"The header {HEADER} must be there once, with 1 to {KEY_MAX_CHARS} visible ASCII characters."
        raise FieldsInvalid([FieldError("idempotency_key_invalid", message, HEADER)])
    caller = request.ctx.caller
    assert caller is not None, "only routes with a scope keep answers"
    return Owner(caller.account.id, caller.is_test, key)


def fingerprint(request: Request) -> bytes:
    """SHA-256 of what was asked: method, path, query and body."""
    asked = "\n".join((request.method, request.path, request.query_string)).encode()
    return hashlib.sha256(b"%d\n%b\n%b" % (len(asked), asked, request.body)).digest()


def replay(request: Request, owner: Owner, kept: KeptAnswer, asked: bytes) -> HTTPResponse:
    """The answer as it was given. Raises IdempotencyKeyReused, and IdempotencyKeyInUse while there is none yet."""
    if kept.fingerprint != asked:
        raise IdempotencyKeyReused
    if kept.status is None or kept.body is None:
        raise IdempotencyKeyInUse
    try:
        body = request.app.ctx.answers_seal.open(kept.body, owner.place)
    except SealBroken:
        # Of a mail, which `emails/keys.py` answers, or moved here by somebody: no answer of this route's.
        raise IdempotencyKeyInUse from None
    return HTTPResponse(
        body,
        status=kept.status,
        headers={"Cache-Control": "no-store", REPLAYED_HEADER: "true"},
        content_type="application/json",
    )
