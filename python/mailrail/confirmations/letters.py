"""The mail that asks. It says who asks, to which words, and that silence is a no; it has nothing else in it."""

from html import escape

from mailrail.confirmations.model import Due, Question
from mailrail.emails.form import Mailbox, MailDraft


def letter(due: Due, asked: Question, link: str, sender: Mailbox) -> MailDraft:
    """To one person, in his list's words."""
    return MailDraft(
        to=[(None, due.email)],
        cc=[],
        bcc=[],
        sender=sender,
        reply_to=[],
        subject=due.subject or f"Please confirm your subscription to {due.list_name}",
        html=_html(asked, link),
        text=_text(asked, link),
        variables=None,
        headers={"Auto-Submitted": "auto-generated"},
        tags={"type": "confirmation"},
        attachments=[],
    )


def _text(asked: Question, link: str) -> str:
    return (
        f"This address was signed up for the list “{asked.list}” of {asked.account}.\n\n{asked.wording}\n\n"
        f"If that is right, confirm it here:\n{link}\n\n"
        "If it was not you, do nothing: you will get no mail of this list.\n"
    )


def _html(asked: Question, link: str) -> str:
    wording = "<br>".join(escape(line) for line in asked.wording.splitlines())
    return (
        '<!doctype html>\n<html lang="en"><body style="font: 16px/1.5 sans-serif; max-width: 34em; margin: 2em auto">'
        f"<p>This address was signed up for the list “{escape(asked.list)}” of {escape(asked.account)}.</p>"
        f"<p>{wording}</p>"
        f'<p><a href="{escape(link)}" style="font-weight: bold">Confirm the subscription</a></p>'
        "<p>If it was not you, do nothing: you will get no mail of this list.</p></body></html>\n"
    )
