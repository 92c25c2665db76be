"""A transactional mail as both dialects write it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mailrail.accounts.form import read_tracking
from mailrail.accounts.model import TRACKED, Tracking
from mailrail.emails.mail import ADDRESSES_MAX, BATCH_MAX, MailStatus, Role
from mailrail.ids import Ids
from mailrail.templates.form import read_ref, refuse_beside_template
from mailrail.templates.model import Ref
from mailrail.web.fields import Fields

SUBJECT_MAX_CHARS = 998
PART_MAX_CHARS = 5 * 1024 * 1024
# SES takes 15, and one is our own.
HEADERS_MAX = 14
HEADER_NAME_MAX_CHARS = 126
HEADER_MAX_CHARS = 870
TAGS_MAX = 20
TAG_MAX_CHARS = 100
ATTACHMENTS_MAX = 50
ATTACHMENT_MAX_CHARS = 14 * 1024 * 1024
FILENAME_MAX_CHARS = 255
REPLY_TO_MAX = 20

Mailbox = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class MailDraft:
    """A mail as it was asked for. Without `sender` it goes from the account's default one; with `variables` its subject, html
    and text are templates. With `template` it has neither html nor text of its own, and may have no subject.
    """

    to: list[Mailbox]
    cc: list[Mailbox]
    bcc: list[Mailbox]
    sender: Mailbox | None
    reply_to: list[Mailbox]
    subject: str | None
    html: str | None
    text: str | None
    variables: dict[str, Any] | None
    headers: dict[str, str]
    tags: dict[str, str]
    attachments: list[dict[str, Any]] = field(repr=False)
    scheduled_at: datetime | None = None
    tracking: Tracking = TRACKED
    template: Ref | None = None
    preheader: str | None = None


def read_mail(fields: Fields, ids: Ids) -> MailDraft:
    """The fields of POST /api/v1/emails. The caller finishes them."""
    to = fields.mailboxes("to", ADDRESSES_MAX)
    cc, bcc = fields.mailboxes("cc", ADDRESSES_MAX), fields.mailboxes("bcc", ADDRESSES_MAX)
    if not to:
        fields.error("to", "field_missing", "to is required: an address, or a list of them.")
    if len(to) + len(cc) + len(bcc) > ADDRESSES_MAX:
        fields.error("to", "list_too_long", f"A mail has at most {ADDRESSES_MAX} addresses in to, cc and bcc together.")
    name, email = fields.mailbox("from")
    template = read_ref(fields, ids)
    subject = fields.text("subject", SUBJECT_MAX_CHARS)
    html = fields.text("html", PART_MAX_CHARS, lines=True)
    text = fields.text("text", PART_MAX_CHARS, lines=True)
    fields.require_any("subject", "template")
    fields.require_any("html", "text", "template")
    if subject is not None and not subject.strip():
        fields.error("subject", "field_empty", "subject must not be empty.")
    if template is not None:
        refuse_beside_template(fields, ("html", "text"))
    return MailDraft(
        to=to,
        cc=cc,
        bcc=bcc,
        sender=None if not email else (name, email),
        reply_to=fields.mailboxes("replyTo", REPLY_TO_MAX),
        subject=subject,
        html=html,
        text=text,
        variables=fields.mapping("variables"),
        headers=fields.words("headers", HEADERS_MAX, HEADER_NAME_MAX_CHARS, HEADER_MAX_CHARS),
        tags=fields.words("tags", TAGS_MAX, TAG_MAX_CHARS, TAG_MAX_CHARS),
        attachments=[read_attachment(item) for item in fields.objects("attachments", ATTACHMENTS_MAX)],
        scheduled_at=fields.moment("scheduledAt"),
        tracking=read_tracking(fields),
        template=template,
    )


def read_attachment(fields: Fields) -> dict[str, Any]:
    """One file, in base64, as the core takes it."""
    return {
        "filename": fields.required_text("filename", FILENAME_MAX_CHARS),
        "content": fields.required_text("content", ATTACHMENT_MAX_CHARS, lines=True),
        "content_type": fields.text("contentType", TAG_MAX_CHARS),
        "content_id": fields.text("contentId", TAG_MAX_CHARS),
        "disposition": fields.word("disposition", ("attachment", "inline")),
    }


def read_batch(fields: Fields, ids: Ids) -> list[MailDraft]:
    """The fields of POST /api/v1/emails/batch."""
    drafts = [read_mail(item, ids) for item in fields.objects("emails", BATCH_MAX)]
    if not drafts:
        fields.error("emails", "field_missing", f"emails is required: a list of 1 to {BATCH_MAX} mails.")
    return drafts


def read_status(fields: Fields) -> MailStatus | None:
    """The word that a list of mails is filtered by."""
    word = fields.word("status", [str(status) for status in MailStatus])
    return MailStatus(word) if word in set(MailStatus) else None


def addresses_of(draft: MailDraft) -> tuple[tuple[Role, str], ...]:
    """Everybody who gets the mail, once: whoever stands in several places counts where he stands first."""
    found: dict[str, tuple[Role, str]] = {}
    for role, boxes in ((Role.TO, draft.to), (Role.CC, draft.cc), (Role.BCC, draft.bcc)):
        for _, address in boxes:
            found.setdefault(address.lower(), (role, address))
    return tuple(found.values())
