"""A text part from an HTML source, letter by letter.

Where lines break is not modelled: templates that put blocks around markup leave that open. Words, their order, the
addresses behind links and every template tag are.
"""

import html

from tests.oracle.markup import Token, decode_attribute, end_of_tag, read_tokens

# fmt: off
_LINE = frozenset({
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head",
    "header", "hr", "html", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td",
    "tfoot", "th", "thead", "tr", "ul",
})
# fmt: on


def text_of(source: str) -> str:
    """A template whose words are those of the text part; its white space is arbitrary."""
    return _Writer(source).write()


class _Writer:
    def __init__(self, source: str) -> None:
        self.source = source
        self.out: list[str] = []
        self.literal: list[str] = []
        self.hidden_in: str | None = None
        self.trims_next = False
        self.link: tuple[str, int] | None = None

    def write(self) -> str:
        for token in read_tokens(self.source):
            self._token(token)
        self._flush()
        return "".join(self.out).strip()

    def _token(self, token: Token) -> None:
        if self.hidden_in is not None and not (token.kind == "end" and token.name == self.hidden_in):
            # Blocks stay balanced even where their text is hidden.
            self._blocks(token)
        elif token.kind == "text":
            text = self.source[token.start : token.end]
            self.literal.append(text.lstrip() if self.trims_next else text)
            self.trims_next = False
        elif token.kind == "tag":
            self._tag(self.source[token.start : token.end])
        elif token.kind == "start":
            self._start(token)
        elif token.kind == "end":
            self._end(token)

    def _tag(self, tag: str) -> None:
        """White space control works on the author's white space here and now, lest it eat the line breaks put in later."""
        if tag[2] == "-":
            self.literal[:] = ["".join(self.literal).rstrip()]
        self._flush()
        self.trims_next = tag[-3] == "-"
        self.out.append(_without_control(tag))

    def _start(self, token: Token) -> None:
        self._flush()
        self.trims_next = False
        self._blocks(token)
        if token.name in _LINE:
            self.out.append("\n")
        if token.name == "title":
            self.hidden_in = "title"
        elif token.name == "li":
            self.out.append("- ")
        elif token.name == "hr":
            self.out.append("---\n")
        elif token.name == "img":
            alt = self._attribute(token, "alt")
            self.out.append("" if "{%" in alt else _with_references_decoded(alt))
        elif token.name == "a":
            self.link = (self._address(token), len(self.out))

    def _end(self, token: Token) -> None:
        self._flush()
        self.trims_next = False
        self._blocks(token)
        self.hidden_in = None
        if token.name == "a" and self.link is not None:
            address, begun_at = self.link
            shown = " ".join("".join(self.out[begun_at:]).split())
            self.link = None
            if address and shown != address:
                self.out.append(f" ({address})" if shown else address)
        if token.name in _LINE:
            self.out.append("\n")

    def _blocks(self, token: Token) -> None:
        if token.kind != "region":
            self.out += [_without_control(tag) for tag in token.inner_tags if tag.startswith("{%")]

    def _attribute(self, token: Token, name: str) -> str:
        start, end = token.attributes.get(name, (0, 0))
        return self.source[start:end]

    def _address(self, token: Token) -> str:
        address = self._attribute(token, "href").strip()
        shown = address.lower().startswith(("http://", "https://", "{{")) and "{%" not in address
        return _with_references_decoded(address) if shown else ""

    def _flush(self) -> None:
        """Literal text gathers until something else comes: a reference may span pieces of it."""
        text = "".join(self.literal)
        self.literal.clear()
        self.out.append(printed(html.unescape(text)))


def _with_references_decoded(value: str) -> str:
    """An attribute's value with its template tags left alone."""
    pieces = []
    at = 0
    while at < len(value):
        tag_end = end_of_tag(value, at)
        if tag_end is None:
            following = min(
                (i for i in (value.find("{{", at + 1), value.find("{%", at + 1)) if i != -1), default=len(value)
            )
            pieces.append(printed(decode_attribute(value[at:following])))
            at = following
        else:
            pieces.append(value[at:tag_end])
            at = tag_end
    return "".join(pieces)


def _without_control(tag: str) -> str:
    return tag[:2] + tag[2:-2].removeprefix("-").removesuffix("-") + tag[-2:]


def printed(text: str) -> str:
    """Braces that come together with each other, or with what follows, must not become a template tag."""
    text = text.replace("{{", "{{ '{{' }}").replace("{%", "{{ '{%' }}")
    return text[:-1] + "{{ '{' }}" if text.endswith("{") else text
