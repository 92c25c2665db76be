"""A campaign as /v1/mail writes it. Contacts have the same fields in both dialects."""

from typing import Any

from mailrail.campaigns import form
from mailrail.campaigns.model import Campaign, CampaignDraft
from mailrail.ids import Ids
from mailrail.web.fields import Fields


def read_draft(fields: Fields, ids: Ids) -> CampaignDraft:
    """The fields of POST /v1/mail/campaigns. Without `audience` it reaches everybody."""
    from_name, from_email = fields.mailbox("from")
    content = fields.nested("content")
    return CampaignDraft(
        name=fields.required_text("name", form.NAME_MAX_CHARS),
        subject=fields.required_text("subject", form.SUBJECT_MAX_CHARS),
        html=content.required_text("html", form.PART_MAX_CHARS, lines=True),
        preheader=fields.text("preheader", form.PREHEADER_MAX_CHARS),
        text=content.text("text", form.PART_MAX_CHARS, lines=True),
        from_name=from_name,
        from_email=from_email,
        reply_to=fields.addresses("replyTo", form.REPLY_TO_MAX),
        audience=form.read_audience(fields.nested("audience"), ids),
        scheduled_at=fields.moment("scheduledAt"),
    )


def write_draft(campaign: Campaign, ids: Ids) -> dict[str, Any]:
    """The inverse of `read_draft`."""
    return {
        **form.written_message(campaign),
        "audience": form.written_audience(campaign.audience, ids),
        "content": {"html": campaign.html, "text": campaign.text},
    }
