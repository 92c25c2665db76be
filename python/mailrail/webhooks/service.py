"""The verbs of webhook endpoints and of deliveries. Each runs in the caller's transaction."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mailrail.accounts import service as accounts
from mailrail.config import Settings
from mailrail.db.pool import Connection
from mailrail.sealing import Seal
from mailrail.webhooks import deliveries, store
from mailrail.webhooks.destinations import destinations
from mailrail.webhooks.model import (
    ENDPOINTS_MAX,
    PREVIOUS_VALID,
    REPLAY_MAX,
    Attempt,
    Delivery,
    DeliveryFilter,
    Endpoint,
    EndpointDraft,
    Message,
    ReplayRange,
    Secrets,
    WebhookInactive,
    WebhookLimitReached,
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
    return open_secrets(
        Seal(settings.secret_key, PURPOSE),
        f"{endpoint.account_id} {endpoint.id}",
        endpoint.secret,
        endpoint.previous_secret,
        endpoint.previous_until,
        await store.read_clock(conn),
    )


def open_secrets(
    seal: Seal, place: str, secret: bytes, previous: bytes | None, previous_until: datetime | None, now: datetime
) -> Secrets:
    """The sealed secrets of the endpoint whose place that is, as far as they are valid. Raises SealBroken."""
    current = seal.open(secret, place).decode()
    if previous is None or previous_until is None or previous_until <= now:
        return Secrets(current, None, None)
    return Secrets(current, seal.open(previous, place).decode(), previous_until)


def _sealed(secret: str, account_id: int, endpoint_id: int, settings: Settings) -> bytes:
    return Seal(settings.secret_key, PURPOSE).close(secret.encode(), f"{account_id} {endpoint_id}")


def _checked_url(text: str, settings: Settings) -> str:
    return destinations(settings).checked_url(text)


# —— deliveries ————————————————————————————————————————————————————————————————————————————————————————————————————————


async def page_deliveries(
    conn: Connection,
    account_id: int,
    endpoint_id: int,
    wanted: DeliveryFilter,
    limit: int,
    offset: int = 0,
    after_id: int | None = None,
) -> tuple[list[Delivery], int]:
    """Newest first, and how many there are, counted to one beyond TOTAL_CAP. Raises WebhookNotFound."""
    await store.read_endpoint(conn, account_id, endpoint_id)
    found = await deliveries.read_page(conn, account_id, endpoint_id, wanted, limit, offset, after_id)
    return found, await deliveries.count(conn, account_id, endpoint_id, wanted)


async def get_delivery(
    conn: Connection, account_id: int, delivery_id: int
) -> tuple[Delivery, Message, Sequence[Attempt], Endpoint]:
    """A delivery with what it says, its attempts, and where it goes. Raises DeliveryNotFound, WebhookNotFound."""
    delivery, message, attempts = await deliveries.read_delivery(conn, account_id, delivery_id)
    return delivery, message, attempts, await store.read_endpoint(conn, account_id, delivery.endpoint_id)


async def send_test(conn: Connection, account_id: int, endpoint_id: int) -> Delivery:
    """A message that says nothing, whatever the endpoint asks for. Raises WebhookNotFound, WebhookInactive."""
    await _active(conn, account_id, endpoint_id)
    return await deliveries.insert_test(conn, account_id, endpoint_id)


async def replay(conn: Connection, account_id: int, delivery_id: int) -> Delivery:
    """Once more from the first try on. Raises DeliveryNotFound, WebhookNotFound, WebhookInactive."""
    replayed = await deliveries.replay(conn, account_id, delivery_id)
    await _active(conn, account_id, replayed.endpoint_id)
    return replayed


async def replay_range(
    conn: Connection, account_id: int, endpoint_id: int, wanted: ReplayRange
) -> tuple[int, datetime | None]:
    """The same for what was told in a time; how many, and from when on more wait. Raises WebhookNotFound, WebhookInactive."""
    await _active(conn, account_id, endpoint_id)
    return await deliveries.replay_range(conn, account_id, endpoint_id, wanted, REPLAY_MAX)


async def _active(conn: Connection, account_id: int, endpoint_id: int) -> None:
    if not (await store.read_endpoint(conn, account_id, endpoint_id)).is_active:
        raise WebhookInactive
