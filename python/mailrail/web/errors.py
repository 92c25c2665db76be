"""The only place where an error gets an HTTP status, and the one form in which errors are told."""

import contextlib
import html
import logging
import traceback
from http import HTTPStatus
from typing import Any, NotRequired, TypedDict

import asyncpg
import orjson
from sanic.exceptions import MethodNotAllowed, NotFound, SanicException
from sanic.response import HTTPResponse

from mailrail.errors import MailrailError
from mailrail.ids import Ids, Kind
from mailrail.web.context import Request
from mailrail.web.fields import FieldError, FieldsInvalid

log = logging.getLogger(__name__)

# The code of an error → its status. Services raise errors that know their code and no HTTP.
STATUS: dict[str, int] = {
    "body_unreadable": 400,
    "api_key_missing": 401,
    "api_key_invalid": 401,
    "metrics_refused": 401,
    "insufficient_funds": 402,
    "spend_cap_reached": 402,
    "scope_missing": 403,
    "scope_too_wide": 403,
    "sender_not_verified": 403,
    "notification_refused": 403,
    "account_not_found": 404,
    "key_not_found": 404,
    "campaign_not_found": 404,
    "contact_not_found": 404,
    "delivery_not_found": 404,
    "domain_not_found": 404,
    "hold_not_found": 404,
    "import_not_found": 404,
    "list_not_found": 404,
    "link_not_found": 404,
    "email_not_found": 404,
    "erasure_not_found": 404,
    "template_not_found": 404,
    "webhook_not_found": 404,
    "member_not_found": 404,
    "suppression_not_found": 404,
    "idempotency_key_in_use": 409,
    "campaign_already_sent": 409,
    "campaign_state_wrong": 409,
    "key_in_use": 409,
    "key_limit_reached": 409,
    "nothing_to_retry": 409,
    "refund_too_large": 409,
    "reputation_stopped": 409,
    "transfer_key_used": 409,
    "webhook_inactive": 409,
    "webhook_limit_reached": 409,
    "contact_exists": 409,
    "contact_unreachable": 409,
    "domain_exists": 409,
    "domain_not_proven": 409,
    "import_ended": 409,
    "too_many_imports": 409,
    "list_exists": 409,
    "list_in_use": 409,
    "suppression_stays": 409,
    "template_exists": 409,
    "template_limit_reached": 409,
    "template_version_changed": 409,
    "email_not_cancellable": 409,
    "import_too_large": 413,
    "media_type_refused": 415,
    "content_encoding_refused": 415,
    "import_format_unknown": 415,
    "fields_invalid": 422,
    "idempotency_key_reused": 422,
    "amount_invalid": 422,
    "import_columns_invalid": 422,
    "import_unreadable": 422,
    "list_unreadable": 422,
    "audience_empty": 422,
    "consent_required": 422,
    "domain_invalid": 422,
    "mail_from_invalid": 422,
    "email_invalid": 422,
    "email_invalid_content": 422,
    "email_rejected": 422,
    "recipient_suppressed": 422,
    "schedule_too_far": 422,
    "no_default_sender": 422,
    "schedule_invalid": 422,
    "template_invalid": 422,
    "webhook_url_invalid": 422,
    "rate_limited": 429,
    "database_unusable": 503,
    "intake_unavailable": 503,
    "sending_held": 503,
    "ses_unavailable": 503,
    "wallet_frozen": 503,
}

# What Sanic itself refuses, and what is not our caller's fault.
OF_THE_SERVER: dict[int, tuple[str, str]] = {
    400: ("request_unreadable", "The request cannot be read."),
    404: ("route_not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not answer that method."),
    408: ("request_timeout", "The request did not arrive in time."),
    413: ("body_too_large", "The request is larger than this server reads."),
    500: ("internal_error", "Something went wrong on our side. The request id helps to find out what."),
    503: ("service_unavailable", "The service is not available at the moment. Try again soon."),
}

TYPES: dict[int, str] = {
    401: "authentication_error",
    402: "payment_error",
    403: "permission_error",
    408: "api_error",
    429: "rate_limit_error",
}
RETRY_AFTER_S = "5"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

# The database cannot be reached, is going down, undid the work, or a migration stood in the way: it passes.
DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    # Two transactions in each other's way: this one was undone and may come again.
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
)


class FieldErrorAnswer(TypedDict):
    """What is wrong with one field; `param` is its path, as `content.html`."""

    code: str
    message: str
    param: str


class ErrorDetail(TypedDict):
    """What went wrong. Branch on `code`: `message` is for people. Some codes add fields of their own."""

    type: str
    code: str
    message: str
    param: str | None
    doc_url: str
    request_id: str
    id: NotRequired[str]
    line: NotRequired[int]
    reason: NotRequired[str]


class ErrorAnswer(TypedDict):
    """Every error has this form; `errors` has all fields that are wrong at once."""

    error: ErrorDetail
    errors: list[FieldErrorAnswer]


def answer_error(request: Request, error: Exception) -> HTTPResponse:
    """Sanic's exception handler for everything that is raised."""
    if isinstance(error, MailrailError):
        return answer_domain_error(request, error)
    if isinstance(error, MethodNotAllowed):
        return answer_server_error(request, 405, {"Allow": ", ".join(allowed_methods(request))})
    if isinstance(error, SanicException):
        return answer_server_error(request, error.status_code, getattr(error, "headers", None))
    # Arguments that a statement does not take are a bug of ours, though asyncpg files them under InterfaceError.
    if isinstance(error, DATABASE_AWAY) and not isinstance(error, ValueError):
        log.warning("the database failed (%s)", type(error).__name__)
        return answer_server_error(request, 503)
    log_unexpected(request, error)
    return answer_server_error(request, 500)


def answer_domain_error(request: Request, error: MailrailError) -> HTTPResponse:
    """An error of ours, as its code says."""
    status = STATUS.get(error.code, 500)
    if status == 500:
        log_unexpected(request, error)
        return answer_server_error(request, 500)
    extra = {name: value for name in ("line", "reason", "id") if (value := getattr(error, name, None)) is not None}
    # Money, where the caller has to do sums: names as they are printed, micro-dollars.
    extra |= getattr(error, "amounts", {})
    if (existing := existing_id(request.app.ctx.ids, error)) is not None:
        extra["id"] = existing
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = None if retry_after_s is None else {"Retry-After": retry_after_s}
    return respond(request, status, error.code, str(error), error.param, field_errors(error), extra, headers)


def answer_server_error(request: Request, status: int, headers: dict[str, Any] | None = None) -> HTTPResponse:
    """An error that knows only its status."""
    code, message = OF_THE_SERVER.get(status) or (f"http_{status}", HTTPStatus(status).phrase)
    return respond(request, status, code, message, None, (), {}, headers)


def respond(
    request: Request,
    status: int,
    code: str,
    message: str,
    param: str | None,
    errors: tuple[FieldError, ...],
    extra: dict[str, Any],
    headers: dict[str, Any] | None = None,
) -> HTTPResponse:
    """The one form of every error."""
    told = [{"code": item.code, "message": item.message, "param": item.param, **extra} for item in errors]
    body = {
        "error": {
            "type": TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error"),
            "code": code,
            "message": message,
            "param": param or (errors[0].param if errors else None),
            "doc_url": f"{request.app.ctx.settings.public_url}/docs/errors#{code}",
            "request_id": request.ctx.request_id,
            **extra,
        },
        "errors": told,
    }
    sent = {name: str(value) for name, value in (headers or {}).items()}
    if status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    if status == 503:
        sent.setdefault("Retry-After", RETRY_AFTER_S)
    return HTTPResponse(orjson.dumps(body), status=status, headers=sent, content_type="application/json")


def field_errors(error: MailrailError) -> tuple[FieldError, ...]:
    """All that is wrong with the fields; of a domain error, the one field that it names."""
    if isinstance(error, FieldsInvalid):
        return error.errors
    return (FieldError(error.code, str(error), error.param),) if error.param else ()


def existing_id(ids: Ids, error: MailrailError) -> str | None:
    """The id of what is there already, for errors that say so as (kind, row number)."""
    match getattr(error, "existing", None):
        case (Kind() as kind, int(row_id)):
            return ids.encode(kind, row_id)
        case _:
            return None


def log_unexpected(request: Request, error: Exception) -> None:
    """Where it happened and what kind of error it was; its message may quote what a customer sent."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s %s: %s\n%s", request.method, route_of(request), type(error).__name__, frames)


def allowed_methods(request: Request) -> list[str]:
    """What the address does answer (RFC 9110, 15.5.6). Sanic tells only where one route has the address to itself."""
    allowed = []
    for method in METHODS:
        with contextlib.suppress(MethodNotAllowed, NotFound):
            request.app.router.get(request.path, method, request.headers.get("host"))
            allowed.append(method)
    return allowed


def route_of(request: Request) -> str:
    """The pattern of the route: the path itself may hold a token."""
    return request.route.path if request.route else "no route"


def reference_page() -> str:
    """The page that `doc_url` points to: every code with its status."""
    entries = {**{code: (status, "") for code, status in STATUS.items()}, **meanings()}
    rows = "".join(
        f'<tr id="{code}"><td>{status}</td><td><code>{code}</code></td><td>{html.escape(meaning)}</td></tr>'
        for code, (status, meaning) in sorted(entries.items(), key=lambda entry: (entry[1][0], entry[0]))
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Errors of mailrail</title>'
        '<meta name="viewport" content="width=device-width"><main><h1>Errors</h1>'
        "<table><thead><tr><th scope=col>Status</th><th scope=col>Code</th><th scope=col>Meaning</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></main></html>"
    )


def meanings() -> dict[str, tuple[int, str]]:
    """What each code means: the first line of its class, or our own words for what the server refuses."""
    of_the_server = {code: (status, message) for status, (code, message) in OF_THE_SERVER.items()}
    of_the_domain = {
        kind.code: (STATUS[kind.code], (kind.__doc__ or "").strip().splitlines()[0])
        for kind in domain_errors(MailrailError)
        if kind.code in STATUS
    }
    return {**of_the_server, **of_the_domain}


def domain_errors(root: type[MailrailError]) -> list[type[MailrailError]]:
    """Every class of error that the loaded rooms define."""
    return [kind for child in root.__subclasses__() for kind in (child, *domain_errors(child))]
