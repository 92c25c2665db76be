"""The pages of `/confirm`, in the frame of all pages for readers of mail."""

from html import escape

from mailrail.confirmations.model import Question
from mailrail.web.reader_pages import button, page


def confirm_page(asked: Question) -> str:
    """Asks; only the form acts."""
    return page(
        "Confirm your subscription",
        f"<p>{_lines(asked.wording)}</p>"
        f'<form method="post">{button("confirm", "yes", f"Confirm the list “{asked.list}”")}</form>'
        f"<p>If you did not sign up with {escape(asked.account)}, close this page: you will get no mail of this list.</p>",
        asked.account,
    )


def confirmed_page(asked: Question) -> str:
    """Thanks."""
    return page(
        "You are subscribed",
        f"<p>Thank you. {escape(asked.account)} has your word: {_lines(asked.wording)}</p>",
        asked.account,
    )


def over_page() -> str:
    """For a link that is too old, or of somebody who left since."""
    return page("This link is no longer valid", "<p>Nothing was changed. Please sign up again to get a new link.</p>")


def unclear_page() -> str:
    """For a POST that is not the form."""
    return page("Nothing was changed", "<p>Please use the button on the confirmation page.</p>")


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.splitlines())
