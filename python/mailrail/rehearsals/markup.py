"""What stands in a campaign's HTML as it was written: its links, its pictures, and whether it says anything in words.

One pass from left to right over a source whose tags of the template language the core has found to be whole. It is linear in
whatever somebody writes, which Python's own parser is not.
"""

import html
import re
from dataclasses import dataclass, field

_NEXT = re.compile(r"\{\{|\{%|<!--|<(?=[A-Za-z/!?])")
_CLOSE = {"{{": "}}", "{%": "%}", "<!--": "-->"}
_NAME = re.compile(r"<[/!?]?([A-Za-z][^\s/>{]*)?")
_BLANK = re.compile(r"[\s/]+")
_ATTRIBUTE = re.compile(r"(?!\{[{%])([^\s/>={]|\{(?![{%]))+")
_EQUALS = re.compile(r"\s*=\s*")
_END_OF_VALUE = {
    '"': re.compile(r'"|\{\{|\{%'),
    "'": re.compile(r"'|\{\{|\{%"),
    "": re.compile(r"(?=[\s>])|\{\{|\{%"),
}
# What of these elements is no HTML, and not read by anybody.
_RAW = {name: re.compile(rf"</{name}", re.IGNORECASE) for name in ("script", "style", "title", "textarea")}
# They take up room and say nothing: many mail builders fill their preheader with them.
_INVISIBLE = str.maketrans("", "", "\u00ad\u034f\u200b\u200c\u200d\u2060\ufeff")


@dataclass(frozen=True, slots=True)
class Href:
    """Where a link leads: as written, without the entities of HTML. One that a template tag is part of is different for each
    reader.
    """

    value: str
    is_dynamic: bool


@dataclass(slots=True)
class Markup:
    """What was found. A picture without an `alt` attribute is one; an empty `alt` says that it needs none."""

    hrefs: list[Href] = field(default_factory=list)
    images: int = 0
    images_without_alt: int = 0
    has_words: bool = False


def survey(source: str) -> Markup:
    """Reads the HTML."""
    found, at = Markup(), 0
    while at < len(source):
        token = _NEXT.search(source, at)
        end = token.start() if token else len(source)
        found.has_words = found.has_words or _says_something(source[at:end])
        if token is None:
            break
        if (close := _CLOSE.get(token[0])) is not None:
            found.has_words = found.has_words or token[0] == "{{"
            at = _behind(source, close, token.end())
        else:
            at = _read_tag(source, token.start(), found)
    return found


def _says_something(text: str) -> bool:
    return bool(html.unescape(text).translate(_INVISIBLE).strip())


def _behind(source: str, close: str, at: int) -> int:
    """Where it goes on after what is closed so; the end, where nothing closes it."""
    found = source.find(close, at)
    return len(source) if found < 0 else found + len(close)


def _read_tag(source: str, at: int, found: Markup) -> int:
    """Notes what a tag is about; returns where it ends."""
    head = _NAME.match(source, at)
    if head is None or source[at + 1] in "/!?":
        return _behind(source, ">", at)
    name = (head[1] or "").lower()
    attributes, end = _attributes(source, head.end())
    if name in ("a", "area") and "href" in attributes:
        found.hrefs.append(attributes["href"])
    elif name == "img":
        found.images += 1
        found.images_without_alt += "alt" not in attributes
    elif name in _RAW:
        closing = _RAW[name].search(source, end)
        return len(source) if closing is None else _behind(source, ">", closing.start())
    return end


def _attributes(source: str, at: int) -> tuple[dict[str, Href], int]:
    """The attributes of a tag, of equal ones the first, and where it ends."""
    found: dict[str, Href] = {}
    while at < len(source):
        if (blank := _BLANK.match(source, at)) is not None:
            at = blank.end()
        elif source[at] == ">":
            return found, at + 1
        elif (close := _CLOSE.get(source[at : at + 2])) is not None:
            at = _behind(source, close, at)
        elif (name := _ATTRIBUTE.match(source, at)) is None:
            at += 1
        else:
            at, value = name.end(), Href("", is_dynamic=False)
            if (equals := _EQUALS.match(source, at)) is not None:
                at, value = _value(source, equals.end())
            found.setdefault(name[0].lower(), value)
    return found, at


def _value(source: str, at: int) -> tuple[int, Href]:
    quote = source[at : at + 1] if source[at : at + 1] in ('"', "'") else ""
    begin = at = at + len(quote)
    is_dynamic = False
    while (end := _END_OF_VALUE[quote].search(source, at)) is not None:
        if (close := _CLOSE.get(end[0])) is None:
            return end.end(), Href(html.unescape(source[begin : end.start()]).strip(), is_dynamic)
        is_dynamic, at = True, _behind(source, close, end.end())
    return len(source), Href(html.unescape(source[begin:]).strip(), is_dynamic)
