"""What the API shows of campaigns: the forms of its answers, and how a campaign gets into them."""

from typing import Any, TypedDict

from mailrail.accounts.model import Account, Tracking
from mailrail.campaigns import form
from mailrail.campaigns.links import Link
from mailrail.campaigns.model import Audience, Campaign, Launch, Progress
from mailrail.campaigns.recipients import Recipient
from mailrail.config import Settings
from mailrail.ids import Ids, Kind
from mailrail.web.pages import PageAnswer
from mailrail.web.values import shown_time, shown_time_or_none, shown_usd


class SenderAnswer(TypedDict):
    """Who a mail is from."""

    name: str | None
    email: str


class TrackingAnswer(TypedDict):
    """What may be known of a mail: that it was opened, and which links were followed."""

    opens: bool
    clicks: bool


class MembersAnswer(TypedDict, total=False):
    """Contacts by tags, lists and conditions, each [field, operator, value]; what asks for nothing is left out."""

    tags: list[str]
    lists: list[str]
    where: list[list[Any]]


class AudienceAnswer(MembersAnswer, total=False):
    """Whom a campaign is for, less those who match `exclude`."""

    exclude: MembersAnswer


class WireAnswer(TypedDict):
    """How a campaign's mail reaches Amazon SES, `slots` (many in a call) or `simple` (each by itself), and why."""

    mode: str
    reason: str | None


CampaignAnswer = TypedDict(
    "CampaignAnswer",
    {
        "id": str,
        "name": str,
        "status": str,
        "reason": str | None,
        "subject": str,
        "preheader": str | None,
        "from": SenderAnswer | None,
        "replyTo": list[str],
        "listId": str | None,
        "tags": list[str],
        "audience": AudienceAnswer,
        "tracking": TrackingAnswer,
        "audienceCount": int | None,
        "estimatedCost": float | None,
        "estimatedCostMicros": int | None,
        "template": str | None,
        "templateVersion": int | None,
        "delivery": WireAnswer | None,
        "warnings": list[str],
        "createdAt": str,
        "scheduledAt": str | None,
        "sentAt": str | None,
        "submittedAt": str | None,
        "completedAt": str | None,
    },
)


class CampaignsAnswer(PageAnswer):
    """A page of campaigns."""

    campaigns: list[CampaignAnswer]


class ProgressAnswer(TypedDict):
    """How far a send is: recipients = delivered + bounced + failed + skipped + open; the rest counts across them. Opened and
    clicked are by people; `machine…` counts the others, of whom only scanners and privacy proxies were seen. Rates are of those
    delivered, that of bounces of those accepted; null while there are none.
    """

    recipients: int
    accepted: int
    delivered: int
    bounced: int
    complained: int
    opened: int
    clicked: int
    unsubscribed: int
    failed: int
    skipped: int
    open: int
    machineOpened: int
    machineClicked: int
    openRate: float | None
    clickRate: float | None
    bounceRate: float | None
    complaintRate: float | None
    unsubscribeRate: float | None


class LinkAnswer(TypedDict):
    """A link of a campaign, `id` being its number in the mail. `clicked` counts people, `clicks` how often they followed it,
    `machineClicks` how often scanners did.
    """

    id: str
    url: str
    clicked: int
    clicks: int
    machineClicks: int
    firstClickAt: str | None
    lastClickAt: str | None


class LinksAnswer(PageAnswer):
    """A page of a campaign's links, in the order in which they stand in the mail."""

    links: list[LinkAnswer]


class CampaignDetailAnswer(CampaignAnswer):
    """A campaign, what it says and how far it is."""

    content: str
    text: str | None
    progress: ProgressAnswer


class DeletedCampaignAnswer(TypedDict):
    """A campaign that is gone."""

    id: str
    deleted: bool


class CostAnswer(TypedDict):
    """What a send has set aside, in dollars and exactly."""

    estimated: float
    estimatedMicros: int
    currency: str
    holdId: str | None


class LaunchAnswer(TypedDict):
    """A campaign that was sent or scheduled."""

    success: bool
    status: str
    id: str
    audienceCount: int
    cost: CostAnswer
    scheduledAt: str | None
    sentAt: str | None


class LeftOutAnswer(TypedDict):
    """Recipients whom a retry left out, and why."""

    state: str
    recipients: int
    why: str


class RetryAnswer(TypedDict):
    """A campaign that is sent once more to some, and what that sets aside."""

    id: str
    status: str
    retried: int
    cost: CostAnswer
    leftOut: list[LeftOutAnswer]


class RecipientStateAnswer(TypedDict):
    """Where one recipient of a campaign stands and why; `contactId` is null once the contact is gone."""

    id: str
    email: str
    contactId: str | None
    state: str
    reason: str | None
    attempts: int
    messageId: str | None
    updatedAt: str | None
    opens: int
    clicks: int
    machineOpens: int
    machineClicks: int
    complained: bool
    unsubscribed: bool


class RecipientsAnswer(PageAnswer):
    """A page of a campaign's recipients."""

    recipients: list[RecipientStateAnswer]


class CampaignTotalsAnswer(TypedDict):
    """How many campaigns there are."""

    total: int
    sending: int
    completed: int


class StatsAnswer(TypedDict):
    """The account at a glance."""

    contacts: int
    campaigns: CampaignTotalsAnswer
    emailsThisMonth: int
    domains: int


def written_audience(audience: Audience, ids: Ids) -> AudienceAnswer:
    """As requests write it."""
    written: AudienceAnswer = form.written_audience(audience, ids)
    return written


def shown_tracking(tracking: Tracking) -> TrackingAnswer:
    """As requests write it."""
    return {"opens": tracking.opens, "clicks": tracking.clicks}


def estimated_micros(account: Account, settings: Settings, audience_count: int) -> int:
    """What sending to so many would cost; micro-dollars."""
    return audience_count * account.price_micros if settings.billing else 0


def cost(started: Launch, ids: Ids) -> CostAnswer:
    """What a send has set aside; what a scheduled one will."""
    return shown_cost(started.amount_micros, started.hold_id, ids)


def shown_cost(amount_micros: int, hold_id: int | None, ids: Ids) -> CostAnswer:
    """An amount, and the hold that has it."""
    return {
        "estimated": shown_usd(amount_micros),
        "estimatedMicros": amount_micros,
        "currency": "USD",
        "holdId": ids.encode_optional(Kind.HOLD, hold_id),
    }


def shown_progress(progress: Progress) -> ProgressAnswer:
    """How far a send is."""
    delivered = progress.delivered
    return {
        "recipients": progress.recipients,
        "accepted": progress.accepted,
        "delivered": delivered,
        "bounced": progress.bounced,
        "complained": progress.complained,
        "opened": progress.opened,
        "clicked": progress.clicked,
        "unsubscribed": progress.unsubscribed,
        "failed": progress.failed,
        "skipped": progress.skipped,
        "open": progress.open,
        "machineOpened": progress.machine_opened,
        "machineClicked": progress.machine_clicked,
        "openRate": _rate(progress.opened, delivered),
        "clickRate": _rate(progress.clicked, delivered),
        "bounceRate": _rate(progress.bounced, progress.accepted),
        "complaintRate": _rate(progress.complained, delivered),
        "unsubscribeRate": _rate(progress.unsubscribed, delivered),
    }


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def shown_link(link: Link) -> LinkAnswer:
    """A link and who followed it."""
    return {
        "id": str(link.n),
        "url": link.url,
        "clicked": link.clicked,
        "clicks": link.clicks,
        "machineClicks": link.machine_clicks,
        "firstClickAt": shown_time_or_none(link.first_at),
        "lastClickAt": shown_time_or_none(link.last_at),
    }


def shown_recipient(one: Recipient, stream_id: int, ids: Ids) -> RecipientStateAnswer:
    """Where one recipient stands."""
    return {
        "id": ids.encode_email(stream_id, one.seq),
        "email": one.email,
        "contactId": ids.encode_optional(Kind.CONTACT, one.contact_id),
        "state": one.state.name.lower(),
        "reason": one.reason,
        "attempts": one.attempts,
        "messageId": one.ses_message_id,
        "updatedAt": shown_time_or_none(one.at),
        "opens": one.opens,
        "clicks": one.clicks,
        "machineOpens": one.machine_opens,
        "machineClicks": one.machine_clicks,
        "complained": one.complained,
        "unsubscribed": one.unsubscribed,
    }


def shown_delivery(campaign: Campaign) -> WireAnswer | None:
    """None for a campaign that has not started."""
    return {"mode": campaign.wire_mode, "reason": campaign.wire_reason} if campaign.wire_mode else None


def shown_campaign(
    campaign: Campaign, audience_count: int | None, account: Account, settings: Settings, ids: Ids
) -> CampaignAnswer:
    """A campaign of /api/v1; without a count it has no price either."""
    lists = campaign.audience.lists
    micros = None if audience_count is None else estimated_micros(account, settings, audience_count)
    return {
        "id": ids.encode(Kind.CAMPAIGN, campaign.id),
        "name": campaign.name,
        "status": campaign.status.shown,
        "reason": campaign.reason,
        "subject": campaign.subject,
        "preheader": campaign.preheader,
        "from": None if campaign.from_email is None else {"name": campaign.from_name, "email": campaign.from_email},
        "replyTo": campaign.reply_to,
        "listId": ids.encode(Kind.LIST, lists[0]) if len(lists) == 1 else None,
        "tags": campaign.audience.tags,
        "audience": written_audience(campaign.audience, ids),
        "tracking": shown_tracking(campaign.tracking),
        "audienceCount": audience_count,
        "estimatedCost": None if micros is None else shown_usd(micros),
        "estimatedCostMicros": micros,
        "template": ids.encode_optional(Kind.TEMPLATE, campaign.template_id),
        "templateVersion": campaign.template_version,
        "delivery": shown_delivery(campaign),
        "warnings": campaign.warnings,
        "createdAt": shown_time(campaign.created_at),
        "scheduledAt": shown_time_or_none(campaign.scheduled_at),
        "sentAt": shown_time_or_none(campaign.sent_at),
        "submittedAt": shown_time_or_none(campaign.submitted_at),
        "completedAt": shown_time_or_none(campaign.completed_at),
    }
