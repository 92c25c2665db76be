"""A reader of mail HTML with template tags in it.

It follows the tokenizer of the HTML standard (section 13.2.5) with one rule on top: outside of comments, styles and
scripts a template tag is one opaque character, whatever stands in it. A raw block is one such tag, and so is `{{ … }}`
inside comments, styles and scripts.
"""

import html
import html.entities
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

SPACE = "\t\n\f\r "
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}", re.DOTALL)
_NEXT = re.compile(r"[<{]|\Z")
_REGIONS = ("style", "script")
# Their content is text to every reader of HTML; `noscript` is none of them, as mail is read without scripts.
_TEXT_ELEMENTS = ("title", "textarea", "xmp", "iframe", "noembed", "noframes")
_UNTRACKED = {"data-mailrail-no-track", "ses:no-track"}


@dataclass(slots=True)
class Token:
    """A piece of the source: `text`, `tag` (of the template), `start`, `end` (of an element) or `region`."""

    kind: str
    start: int
    end: int
    name: str = ""
    attributes: dict[str, tuple[int, int]] = field(default_factory=dict)
    inner_tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Link:
    """The value of an href, by its place in the source, and the address that it spells."""

    start: int
    end: int
    url: str


@dataclass(slots=True)
class Structure:
    """What a template's HTML consists of, as far as the freeze cares. All numbers are offsets into the source."""

    links: list[Link] = field(default_factory=list)
    after_body_start: int | None = None
    last_body_end: int | None = None
    block_marks_in_regions: list[int] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


def read_structure(source: str) -> Structure:
    """Everything that the freeze needs to know about `source`."""
    found = Structure()
    for token in read_tokens(source):
        found.tags.extend(token.inner_tags)
        if token.kind == "region":
            found.block_marks_in_regions.extend(_block_marks(source, token))
        elif token.kind == "start" and token.name == "body" and found.after_body_start is None:
            found.after_body_start = token.end
        elif token.kind == "end" and token.name == "body":
            found.last_body_end = token.start
        elif token.kind == "start" and token.name in ("a", "area"):
            found.links.extend(_link(source, token))
    return found


def _block_marks(source: str, region: Token) -> Iterator[int]:
    """Every `{%` of a region that does not stand in a live `{{ … }}`."""
    at = region.start
    while at < region.end:
        tag_end = end_of_tag(source, at) if source.startswith("{{", at) else None
        if tag_end is not None:
            at = tag_end
            continue
        if source.startswith("{%", at):
            yield at
        at += 1


def _link(source: str, token: Token) -> Iterator[Link]:
    if "href" not in token.attributes or _UNTRACKED & token.attributes.keys():
        return
    start, end = token.attributes["href"]
    value = source[start:end]
    trimmed = value.strip(SPACE)
    opaque = "{{" in value or "{%" in value
    if not opaque and trimmed.lower().startswith(("http://", "https://")):
        yield Link(start, end, decode_attribute(trimmed).strip(SPACE))


def read_tokens(source: str) -> list[Token]:
    """The source, cut up. Together the tokens cover all of it but the marks around regions."""
    return _Reader(source).read()


def end_of_tag(source: str, at: int) -> int | None:
    """Where the template tag that begins at `at` ends; None if none begins there, or it never ends."""
    raw = _RAW.match(source, at)
    if raw is not None:
        return raw.end()
    if source.startswith("{{", at):
        close = "}}"
    elif source.startswith("{%", at):
        close = "%}"
    else:
        return None
    depth = 0
    i = at + 2
    while i < len(source):
        char = source[i]
        if depth == 0 and source.startswith(close, i):
            return i + 2
        if char in "'\"":
            i = _end_of_string(source, i)
            continue
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(depth - 1, 0)
        i += 1
    return None


def _end_of_string(source: str, at: int) -> int:
    quote = source[at]
    i = at + 1
    while i < len(source) and source[i] != quote:
        i += 2 if source[i] == "\\" else 1
    return i + 1


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.tokens: list[Token] = []

    def read(self) -> list[Token]:
        while self.at < len(self.source):
            start = self.at
            if self._skip_template_tag():
                self._add("tag", start, inner_tags=[self.source[start : self.at]])
            elif self._looking_at("<!--"):
                self._comment()
            elif self._looking_at("<!"):
                self._declaration()
            elif self._looking_at("</") and self._letter(self.at + 2):
                self._element("end", 2)
            elif self._looking_at("<") and self._letter(self.at + 1):
                self._element("start", 1)
            else:
                self.at = _NEXT.search(self.source, self.at + 1).start()  # type: ignore[union-attr]
                self._add("text", start)
        return self.tokens

    def _add(self, kind: str, start: int, **rest: object) -> None:
        self.tokens.append(Token(kind, start, self.at, **rest))  # type: ignore[arg-type]

    def _looking_at(self, text: str) -> bool:
        return self.source.startswith(text, self.at)

    def _letter(self, at: int) -> bool:
        return at < len(self.source) and self.source[at].isascii() and self.source[at].isalpha()

    def _skip_template_tag(self) -> bool:
        tag_end = end_of_tag(self.source, self.at)
        self.at = self.at if tag_end is None else tag_end
        return tag_end is not None

    def _comment(self) -> None:
        # `<!-->` and `<!--->` are whole comments, so the search begins at the dashes that open this one.
        start = self.at
        self._skip_to(re.compile("-->"), start + 2)
        self.at = min(self.at + 3, len(self.source))
        self._region(start)

    def _skip_to(self, mark: re.Pattern[str], at: int) -> None:
        """To `mark` or the end, past every `{{ … }}`."""
        while at < len(self.source) and mark.match(self.source, at) is None:
            tag_end = end_of_tag(self.source, at) if self.source.startswith("{{", at) else None
            at = at + 1 if tag_end is None else tag_end
        self.at = at

    def _declaration(self) -> None:
        start = self.at
        end = self.source.find(">", self.at)
        self.at = len(self.source) if end == -1 else end + 1
        self._add("declaration", start)

    def _region(self, start: int) -> None:
        tags = []
        at = start
        while (at := self.source.find("{{", at, self.at)) != -1:
            tag_end = end_of_tag(self.source, at)
            if tag_end is None or tag_end > self.at:
                break
            tags.append(self.source[at:tag_end])
            at = tag_end
        self._add("region", start, inner_tags=tags)

    def _element(self, kind: str, name_at: int) -> None:
        start = self.at
        tags: list[str] = []
        self.at += name_at
        name = self._word(SPACE + "/>", tags)
        attributes = self._attributes(tags)
        if kind == "start" and name in _REGIONS:
            self._skip_to(_end_of_element(name), self.at)
            self._region(start)
            return
        self._add(kind, start, name=name, attributes=attributes, inner_tags=tags)
        if kind == "start" and name in _TEXT_ELEMENTS:
            self._text_element(name)

    def _text_element(self, name: str) -> None:
        """Text and template tags up to the end tag, however much like elements they look."""
        mark = _end_of_element(name)
        while self.at < len(self.source) and mark.match(self.source, self.at) is None:
            start = self.at
            if self._skip_template_tag():
                self._add("tag", start, inner_tags=[self.source[start : self.at]])
            else:
                self.at += 1
                self._add("text", start)

    def _attributes(self, tags: list[str]) -> dict[str, tuple[int, int]]:
        """Reads up to and past the closing `>`; of attributes with one name the first counts."""
        attributes: dict[str, tuple[int, int]] = {}
        while self.at < len(self.source):
            if self.source[self.at] in SPACE + "/":
                self.at += 1
            elif self.source[self.at] == ">":
                self.at += 1
                break
            else:
                name = self._word(SPACE + "/>=", tags)
                attributes.setdefault(name, self._attribute_value(tags))
        return attributes

    def _attribute_value(self, tags: list[str]) -> tuple[int, int]:
        ahead = self._after_space(self.at)
        if not self.source.startswith("=", ahead):
            return self.at, self.at
        self.at = self._after_space(ahead + 1)
        if self.at < len(self.source) and self.source[self.at] in "'\"":
            quote = self.source[self.at]
            self.at += 1
            start, end = self._until(quote, tags)
            self.at = end + 1
            return start, end
        return self._until(SPACE + ">", tags)

    def _after_space(self, at: int) -> int:
        while at < len(self.source) and self.source[at] in SPACE:
            at += 1
        return at

    def _word(self, stops: str, tags: list[str]) -> str:
        """At least one character, up to one of `stops`."""
        start = self.at
        if not self._skip_and_note(tags):
            self.at += 1
        self._until(stops, tags)
        return self.source[start : self.at].lower()

    def _until(self, stops: str, tags: list[str]) -> tuple[int, int]:
        start = self.at
        while self.at < len(self.source):
            if self._skip_and_note(tags):
                continue
            if self.source[self.at] in stops:
                break
            self.at += 1
        return start, self.at

    def _skip_and_note(self, tags: list[str]) -> bool:
        start = self.at
        skipped = self._skip_template_tag()
        if skipped:
            tags.append(self.source[start : self.at])
        return skipped


def _end_of_element(name: str) -> re.Pattern[str]:
    return re.compile(f"</{name}(?=[\t\n\f\r />])", re.IGNORECASE | re.ASCII)


_REFERENCE = re.compile(r"&(?:#[xX][0-9a-fA-F]+;?|#[0-9]+;?|([A-Za-z][A-Za-z0-9]*;?))")


def decode_attribute(text: str) -> str:
    """Character references as the standard reads them inside attributes: `&copy=` there is not a copyright sign."""

    def decode(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return html.unescape(match.group())
        for length in range(len(name), 0, -1):
            if name[:length] in html.entities.html5:
                following = text[match.start() + 1 + length :][:1]
                bare = not name[:length].endswith(";")
                if bare and (following == "=" or (following.isascii() and following.isalnum())):
                    return match.group()
                return html.entities.html5[name[:length]] + name[length:]
        return match.group()

    return _REFERENCE.sub(decode, text)
