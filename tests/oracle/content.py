"""Freeze and render: from what a user wrote to one recipient's subject, HTML and text."""

import html
import re
from dataclasses import dataclass
from typing import Any

import minijinja

from tests.oracle.markup import Structure, read_structure
from tests.oracle.text import printed, text_of

_TAG_WITH_LINK = re.compile(r"\bunsubscribeUrl\b")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]+")
# Neither can be typed: comments do not exist in this template language.
_NO_COMMENT_START, _NO_COMMENT_END = "\x00\x01{#", "#}\x01\x00"


@dataclass(frozen=True, slots=True)
class Source:
    """A campaign's content as written."""

    subject: str
    html: str
    text: str | None = None
    preheader: str | None = None
    base_url: str = "https://mail.example.com"
    track_opens: bool = True
    track_clicks: bool = True
    postal_address: str | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    """A campaign's content as sent: one template per part, and the addresses behind the links."""

    subject: str
    html: str
    text: str
    links: list[str]


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom a mail is for."""

    email: str
    contact_id: int = 1
    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    custom_fields: dict[str, Any] | None = None
    tracked: bool = True


@dataclass(frozen=True, slots=True)
class Rendered:
    """One recipient's content."""

    subject: str
    html: str
    text: str


def freeze(source: Source) -> Frozen:
    """Links, preheader, footer and pixel, in one pass of splices over the source.

    Of a text part made from the HTML only the words count, not its white space.
    """
    structure = read_structure(source.html)
    urls = list(dict.fromkeys(link.url for link in structure.links))
    edits = _link_edits(source, structure, urls)
    text = text_of(_splice(source.html, edits)) if source.text is None else source.text
    edits += [(at, at + 2, "{% raw %}{%{% endraw %}") for at in structure.block_marks_in_regions]
    end = len(source.html) if structure.last_body_end is None else structure.last_body_end
    if source.preheader is not None:
        start = structure.after_body_start or 0
        edits.append((start, start, _preheader(source.preheader)))
    edits.append((end, end, _footer(source, structure) + _pixel(source)))
    return Frozen(source.subject, _splice(source.html, edits), _with_text_footer(source, text), urls)


def _link_edits(source: Source, structure: Structure, urls: list[str]) -> list[tuple[int, int, str]]:
    if not source.track_clicks:
        return []
    numbers = {url: n for n, url in enumerate(urls, start=1)}
    return [
        (link.start, link.end, f"{source.base_url}/c/{{{{ mailrail.t }}}}/{numbers[link.url]}")
        for link in structure.links
    ]


def _preheader(preheader: str) -> str:
    return f'<div style="display:none;max-height:0;overflow:hidden;mso-hide:all">{preheader}</div>'


def _footer(source: Source, structure: Structure) -> str:
    if any(_TAG_WITH_LINK.search(tag) for tag in structure.tags):
        return ""
    postal = f"{printed(html.escape(source.postal_address))}<br>" if source.postal_address else ""
    link = '<a href="{{ unsubscribeUrl }}" style="color:#666666">Unsubscribe</a>'
    return f'<div style="padding:16px;text-align:center;font:12px sans-serif;color:#666666">{postal}{link}</div>'


def _pixel(source: Source) -> str:
    if not source.track_opens:
        return ""
    address = f"{source.base_url}/o/{{{{ mailrail.t }}}}"
    return f'<img src="{address}" width="1" height="1" alt="" style="display:block">'


def _with_text_footer(source: Source, text: str) -> str:
    if any(_TAG_WITH_LINK.search(tag) for tag in read_structure(text).tags):
        return text
    postal = f"{printed(source.postal_address)}\n" if source.postal_address else ""
    # A raw block, as a tag at the text's end may eat the white space behind it.
    text = text.removesuffix("{") + "{{ '{' }}" if text.endswith("{") else text
    return f"{text}{{% raw %}}\n\n-- \n{{% endraw %}}{postal}Unsubscribe: {{{{ unsubscribeUrl }}}}\n"


def _splice(text: str, edits: list[tuple[int, int, str]]) -> str:
    pieces = []
    at = 0
    # Sorting keeps the order of edits at one place: preheader, then footer and pixel.
    for start, end, replacement in sorted(edits, key=lambda edit: edit[0]):
        pieces += [text[at:start], replacement]
        at = end
    return "".join([*pieces, text[at:]])


def render(frozen: Frozen, contact: Contact, *, track_token: str, unsubscribe_url: str) -> Rendered:
    """One recipient's content by the plain engine."""
    fields = _fields(contact, track_token)
    page = fields | {"unsubscribeUrl": minijinja.safe(unsubscribe_url)}
    plain = fields | {"unsubscribeUrl": unsubscribe_url}
    return Rendered(
        subject=_CONTROLS.sub(" ", _evaluate("subject.txt", frozen.subject, plain)).strip(),
        html=_evaluate("mail.html", frozen.html, page),
        text=_evaluate("mail.txt", frozen.text, plain),
    )


def _fields(contact: Contact, track_token: str) -> dict[str, Any]:
    built_in = {
        "firstName": contact.first_name or "",
        "lastName": contact.last_name or "",
        "name": contact.name or "",
        "email": contact.email,
        "mailrail": {"t": track_token},
    }
    # A field without a value is as good as none.
    custom = {name: value for name, value in (contact.custom_fields or {}).items() if value is not None}
    return custom | built_in


def _evaluate(name: str, source: str, variables: dict[str, Any]) -> str:
    environment = minijinja.Environment(
        templates={name: source},
        fuel=100_000,
        undefined_behavior="chainable",
        auto_escape_callback=lambda name: name.endswith(".html"),
        keep_trailing_newline=True,
        comment_start_string=_NO_COMMENT_START,
        comment_end_string=_NO_COMMENT_END,
        pycompat=False,
        finalizer=lambda value: "" if value is None else NotImplemented,
    )
    return environment.render_template(name, **variables)
