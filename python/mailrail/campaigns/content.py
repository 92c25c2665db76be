"""What a campaign says: its templates frozen for a send, tried out, and rendered for one contact."""

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

import orjson

from mailrail import _core
from mailrail.accounts.model import TRACKED, UNTRACKED, Account, Tracking
from mailrail.campaigns.model import Campaign, CampaignDraft, Rendered
from mailrail.config import Settings
from mailrail.templates.model import TemplateInvalid

SAMPLE_ADDRESS = "somebody@example.com"
# What every template may use; the custom fields of the account's contacts come on top.
BUILT_IN_VARIABLES = frozenset(("firstName", "lastName", "name", "email", "unsubscribeUrl"))

# Frozen content as the core gives it.
Frozen: TypeAlias = dict[str, Any]


def freeze(
    message: CampaignDraft | Campaign, account: Account, settings: Settings, allowed: Tracking = TRACKED
) -> Frozen:
    """The content as it is sent; opens and links are tracked where account, campaign and `allowed` all have it so.

    Raises TemplateInvalid.
    """
    tracking = account.tracking & message.tracking & allowed
    source = {
        "subject": message.subject,
        "html": message.html,
        "text": message.text,
        "preheader": message.preheader,
        "base_url": settings.public_url,
        "track_opens": tracking.opens,
        "track_clicks": tracking.clicks,
        "postal_address": account.postal_address,
    }
    try:
        frozen: Frozen = orjson.loads(_core.freeze(orjson.dumps(source)))
    except _core.TemplateError as error:
        raise TemplateInvalid(error.part, error.line, error.reason) from error
    return frozen


def freeze_untracked(message: CampaignDraft | Campaign, account: Account, settings: Settings) -> Frozen:
    """The same for a look at it, which is no event: links stay as they were written. Raises TemplateInvalid."""
    return freeze(message, account, settings, UNTRACKED)


def unknown(frozen: Frozen, known: Collection[str]) -> list[str]:
    """The variables that nothing gives a value: neither mailrail nor one of the `known` custom fields."""
    return [name for name in frozen["variables"] if name not in known and name not in BUILT_IN_VARIABLES]


def try_out(frozen: Frozen, account: Account, settings: Settings) -> list[str]:
    """Renders the mail for a contact of whom only the address is known, because a template may compile and never render.

    Raises TemplateInvalid where no contact could change that; where fields might, returns a warning.
    """
    try:
        render(frozen, account, settings, {"email": SAMPLE_ADDRESS, "custom_fields": {}})
    except TemplateInvalid as error:
        if not frozen["variables"]:
            raise
        where = f"{error.part}, line {error.line}" if error.line else error.part
        return [f"A contact without custom fields does not get this mail: {where}: {error.reason}"]
    return []


def render(frozen: Frozen, account: Account, settings: Settings, contact: dict[str, Any]) -> Rendered:
    """The mail as this contact would read it; its link to unsubscribe names nobody. Raises TemplateInvalid."""
    (rendered,) = render_each(frozen, account, settings, [contact])
    if isinstance(rendered, TemplateInvalid):
        raise rendered
    return rendered


def render_each(
    frozen: Frozen, account: Account, settings: Settings, contacts: Iterable[dict[str, Any]]
) -> list[Rendered | TemplateInvalid]:
    """The mail as each of them would read it, or why there is none for that one."""
    stream = identity(account, settings, stream_id=0, list_id=None, sender=(None, SAMPLE_ADDRESS), reply_to=[])
    plan = _core.Plan(orjson.dumps(frozen), orjson.dumps(stream), _core.Codec(settings.secret_key.encode()))
    found: list[Rendered | TemplateInvalid] = []
    for contact in contacts:
        try:
            found.append(Rendered(**orjson.loads(plan.preview(orjson.dumps(contact | {"contact_id": 0})))))
        except _core.TemplateError as error:
            found.append(TemplateInvalid(error.part, error.line, error.reason))
    return found


def identity(
    account: Account,
    settings: Settings,
    *,
    stream_id: int,
    list_id: int | None,
    sender: tuple[str | None, str],
    reply_to: list[str],
) -> dict[str, Any]:
    """Who sends, as the core takes it."""
    return {
        "stream_id": stream_id,
        "account_id": account.id,
        "list_id": list_id or 0,
        "from_name": sender[0],
        "from_email": sender[1],
        "reply_to": reply_to,
        "configuration_set": settings.configuration_set or None,
        "base_url": settings.public_url,
        "mode": settings.wire_mode,
    }
