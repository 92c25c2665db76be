"""A campaign as /v1/mail writes it. Contacts have the same fields in both dialects."""

from typing import Any

from mailrail.accounts.form import read_tracking
from mailrail.campaigns import form
from mailrail.campaigns.model import Campaign, CampaignDraft
from mailrail.ids import Ids
from mailrail.templates.form import read_ref
from mailrail.web.fields import Fields


def read_draft(fields: Fields, ids: Ids) -> CampaignDraft:
    """The fields of POST /v1/mail/campaigns; `template` may stand in place of `content`. Without `audience` it reaches
    everybody.
    """
    from_name, from_email = fields.mailbox("from")
    template = read_ref(fields, ids)
    message = form.read_message(fields, fields.nested("content"), "html", template)
    return CampaignDraft(
        name=fields.required_text("name", form.NAME_MAX_CHARS),
        subject=message.subject,
        html=message.html,
        preheader=message.preheader,
        text=message.text,
        template=template,
        from_name=from_name,
        from_email=from_email,
        reply_to=fields.addresses("replyTo", form.REPLY_TO_MAX),
        audience=form.read_audience(fields.nested("audience"), ids),
        tracking=read_tracking(fields),
        scheduled_at=fields.moment("scheduledAt"),
    )


def write_draft(campaign: Campaign, ids: Ids) -> dict[str, Any]:
    """The inverse of `read_draft`."""
    return {
        **form.written_message(campaign),
        "audience": form.written_audience(campaign.audience, ids),
        "content": {"html": campaign.html, "text": campaign.text},
    }
