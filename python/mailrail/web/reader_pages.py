"""The frame of all pages that readers of mail see: plain HTML that works without scripts, in any client, read out loud or seen."""

from html import escape

from sanic.response import HTTPResponse, html

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
# The only language so far.
LANGUAGE = "en"

# Colours are named once for light and once for dark, so that a test can compute their contrasts.
_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1b1f; --quiet: #55555e; --action: #1a4fb4; --on-action: #ffffff;
  --focus: #b45309; }
@media (prefers-color-scheme: dark) { :root { --page: #15171c; --ink: #ececf1; --quiet: #b4b4bf; --action: #8fb4ff;
  --on-action: #0d1526; --focus: #ffc24d; } }
body { margin: 0; font: 1.125rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); overflow-wrap: anywhere; }
header, main { max-width: 34rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 8vh; color: var(--quiet); }
main { padding-bottom: 8vh; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2 { font-size: 1.125rem; margin: 2.5rem 0 .5rem; }
fieldset { border: 0; margin: 0; padding: 0; }
legend { padding: 0; }
label { display: flex; gap: .75rem; align-items: center; min-height: 2.75rem; cursor: pointer; }
input { flex: none; width: 1.5rem; height: 1.5rem; margin: 0; accent-color: var(--action); }
button { display: block; min-height: 3rem; margin: 1rem 0; padding: .5rem 1.25rem; font: inherit; font-weight: 600; text-align: left;
  color: var(--on-action); background: var(--action); border: 2px solid var(--action); border-radius: .375rem; cursor: pointer; }
button.other { color: var(--ink); background: transparent; border-color: var(--ink); font-weight: 400; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
"""


def missing_page() -> str:
    """For an address that we did not make, or not in this form."""
    return page("This link does not work", "<p>It may have been cut off. Please copy the whole link from the mail.</p>")


def button(name: str, value: str, label: str, *, other: bool = False) -> str:
    """What sends the form."""
    return f'<button{" class=other" if other else ""} name="{name}" value="{value}">{escape(label)}</button>'


def page(title: str, content: str, account: str | None = None) -> str:
    """The frame; `content` is HTML. `account` is whose mail it is about, where that is known."""
    header = "" if account is None else f"<header>{escape(account)}</header>"
    named = title if account is None else f"{title} – {account}"
    return (
        f'<!doctype html>\n<html lang="{LANGUAGE}">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(named)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{header}<main><h1>{escape(title)}</h1>{content}</main></body>\n</html>\n"
    )


def shown(text: str, status: int = 200) -> HTTPResponse:
    """A page as the answer."""
    return html(text, status=status, headers=HEADERS)


def missing() -> HTTPResponse:
    """404 as a page, since people see it."""
    return shown(missing_page(), 404)
