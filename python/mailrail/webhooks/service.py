"""The verbs of webhook endpoints. Each runs in the caller's transaction."""

import dataclasses
from typing import Any
from urllib.parse import urlsplit

from mailrail.accounts import service as accounts
from mailrail.config import Settings, is_loopback
from mailrail.db.pool import Connection
from mailrail.sealing import Seal
from mailrail.webhooks import store
from mailrail.webhooks.model import (
    ENDPOINTS_MAX,
    PREVIOUS_VALID,
    Endpoint,
    EndpointDraft,
    Secrets,
    WebhookLimitReached,
    checked_url,
    new_secret,
)

PURPOSE = "webhook secret"


async def create(conn: Connection, account_id: int, draft: EndpointDraft, settings: Settings) -> tuple[Endpoint, str]:
    """The endpoint and its secret. Raises WebhookUrlInvalid, WebhookLimitReached."""
    checked = dataclasses.replace(draft, url=_checked_url(draft.url, settings))
    await accounts.lock_account(conn, account_id)
    if await store.count_endpoints(conn, account_id) >= ENDPOINTS_MAX:
        raise WebhookLimitReached(f"An account has at most {ENDPOINTS_MAX} webhook endpoints. Delete one first.")
    endpoint_id, secret = await store.new_id(conn), new_secret()
    sealed = _sealed(secret, account_id, endpoint_id, settings)
    return await store.insert_endpoint(conn, account_id, endpoint_id, checked, sealed), secret


async def get(conn: Connection, account_id: int, endpoint_id: int) -> Endpoint:
    """Raises WebhookNotFound."""
    return await store.read_endpoint(conn, account_id, endpoint_id)


async def page(
    conn: Connection, account_id: int, limit: int, offset: int = 0, after_id: int | None = None
) -> list[Endpoint]:
    """Newest first."""
    return await store.read_page(conn, account_id, limit, offset, after_id)


async def count(conn: Connection, account_id: int) -> int:
    """How many endpoints the account has."""
    return await store.count_endpoints(conn, account_id)


async def change(
    conn: Connection, account_id: int, endpoint_id: int, changes: dict[str, Any], settings: Settings
) -> Endpoint:
    """Changes some of url, events, description and is_active. Raises WebhookNotFound, WebhookUrlInvalid."""
    known = await store.read_endpoint(conn, account_id, endpoint_id)
    if not changes:
        return known
    if "url" in changes:
        changes = {**changes, "url": _checked_url(changes["url"], settings)}
    return await store.update_endpoint(conn, account_id, endpoint_id, changes)


async def delete(conn: Connection, account_id: int, endpoint_id: int) -> None:
    """Raises WebhookNotFound."""
    await store.delete_endpoint(conn, account_id, endpoint_id)


async def rotate_secret(
    conn: Connection, account_id: int, endpoint_id: int, settings: Settings
) -> tuple[Endpoint, Secrets]:
    """A new secret; the one so far stays valid beside it for PREVIOUS_VALID. Raises WebhookNotFound, SealBroken."""
    sealed = _sealed(new_secret(), account_id, endpoint_id, settings)
    rotated = await store.replace_secret(conn, account_id, endpoint_id, sealed, PREVIOUS_VALID)
    return rotated, await secrets_of(conn, rotated, settings)


async def secrets_of(conn: Connection, endpoint: Endpoint, settings: Settings) -> Secrets:
    """What signs the endpoint's messages now. Raises SealBroken."""
    current = _open(endpoint, endpoint.secret, settings)
    if endpoint.previous_secret is None or endpoint.previous_until is None:
        return Secrets(current, None, None)
    if endpoint.previous_until <= await store.read_clock(conn):
        return Secrets(current, None, None)
    return Secrets(current, _open(endpoint, endpoint.previous_secret, settings), endpoint.previous_until)


def _open(endpoint: Endpoint, sealed: bytes, settings: Settings) -> str:
    seal = Seal(settings.secret_key, PURPOSE)
    return seal.open(sealed, f"{endpoint.account_id} {endpoint.id}").decode()


def _sealed(secret: str, account_id: int, endpoint_id: int, settings: Settings) -> bytes:
    return Seal(settings.secret_key, PURPOSE).close(secret.encode(), f"{account_id} {endpoint_id}")


def _checked_url(text: str, settings: Settings) -> str:
    return checked_url(text, is_development=is_loopback(urlsplit(settings.public_url).hostname or ""))
