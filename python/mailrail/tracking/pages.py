"""The pages that readers of a mail see: plain HTML that works without scripts, in any client, read out loud or seen."""

from html import escape

from mailrail.tracking.model import Sender

# Nothing is loaded, nothing runs, and the form goes nowhere but here.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; font: 1.125rem/1.5 system-ui, sans-serif; }
main { max-width: 34rem; margin: 10vh auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; }
button { display: block; min-height: 3rem; margin: 1rem 0; padding: 0 1.25rem; font: inherit; font-weight: 600;
  color: #fff; background: #1a4fb4; border: 2px solid #1a4fb4; border-radius: .375rem; cursor: pointer; }
button.other { color: inherit; background: transparent; border-color: currentColor; font-weight: 400; }
button:focus-visible { outline: 3px solid #e8a400; outline-offset: 2px; }
"""


# What a mail program's one click says, in the words of RFC 8058.
ONE_CLICK = "List-Unsubscribe=One-Click"


def unsubscribe_page(sender: Sender) -> str:
    """Asks; only the form acts."""
    account = escape(sender.account)
    if sender.list is None:
        question = f"You will get no more mail from {account}."
        buttons = button("unsubscribe", "all", wording(sender, everything=True))
    else:
        question = f"This mail came to you by the list “{escape(sender.list)}” of {account}."
        buttons = button("unsubscribe", "list", wording(sender, everything=False)) + button(
            "unsubscribe", "all", wording(sender, everything=True), other=True
        )
    return page("Unsubscribe", f'<p>{question}</p><form method="post">{buttons}</form>')


def wording(sender: Sender, *, everything: bool) -> str:
    """What the button says that the reader used."""
    if sender.list is None:
        return "Unsubscribe"
    return f"Unsubscribe from all mail of {sender.account}" if everything else "Unsubscribe from this list"


def unsubscribed_page(sender: Sender, *, everything: bool) -> str:
    """Confirms."""
    what = "mail" if everything or sender.list is None else f"mail of the list “{escape(sender.list)}”"
    return page("You are unsubscribed", f"<p>You will get no more {what} from {escape(sender.account)}.</p>")


def unclear_page() -> str:
    """For a POST that is neither the form nor a mail program's one click."""
    return page("Nothing was changed", "<p>Please use the button on the unsubscribe page.</p>")


def missing_page() -> str:
    """For an address that we did not make, or not in this form."""
    return page("This link does not work", "<p>It may have been cut off. Please copy the whole link from the mail.</p>")


def button(name: str, value: str, label: str, *, other: bool = False) -> str:
    """What sends the form."""
    return f'<button{" class=other" if other else ""} name="{name}" value="{value}">{escape(label)}</button>'


def page(title: str, content: str) -> str:
    """The frame of all pages; both parts are HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{title}</h1>{content}</main></body>\n</html>\n"
    )
