"""A reader of pages that judges them as WCAG 2.2 does, as far as markup and style sheet tell."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

_VOID = {"meta", "input", "br", "link", "img", "hr"}


@dataclass
class Element:
    """A tag with what it holds."""

    tag: str
    attributes: dict[str, str | None]
    parent: "Element | None" = None
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, *tags: str) -> list["Element"]:
        """Everything of these tags below, in the order of the page."""
        found = []
        for child in self.children:
            found += [child] if not tags or child.tag in tags else []
            found += child.all(*tags)
        return found

    def inside(self, tag: str) -> "Element | None":
        """The nearest element of this tag around it."""
        around = self.parent
        while around is not None and around.tag != tag:
            around = around.parent
        return around


class Page(HTMLParser):
    """A page as a tree. Tags that are not closed, or closed in the wrong order, are an error."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.root = self._open = Element("", {})
        self.feed(source)
        self.close()
        assert self._open is self.root, f"<{self._open.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attrs), self._open)
        self._open.children.append(element)
        if tag not in _VOID:
            self._open = element

    def handle_endtag(self, tag: str) -> None:
        """Called by the parser."""
        assert self._open.tag == tag, f"</{tag}> closes <{self._open.tag}>"
        assert self._open.parent is not None
        self._open = self._open.parent

    def handle_data(self, data: str) -> None:
        """Called by the parser."""
        around: Element | None = self._open
        while around is not None:
            around.text += data
            around = around.parent


def problems(source: str) -> list[str]:
    """What a reader with a screen reader, a keyboard or a small screen would stumble over."""
    root = Page(source).root
    found = []

    def expect(holds: bool, problem: str) -> None:
        found.extend([] if holds else [problem])

    expect(source.startswith("<!doctype html>"), "no doctype")
    expect(bool(root.all("html")[0].attributes.get("lang")), "the language is not said")
    expect([bool(title.text.strip()) for title in root.all("title")] == [True], "not one title")
    expect(len(root.all("main")) == 1, "not one main")
    viewport = [
        meta.attributes.get("content") or "" for meta in root.all("meta") if meta.attributes.get("name") == "viewport"
    ]
    expect(len(viewport) == 1 and "scalable" not in viewport[0] and "maximum" not in viewport[0], "zoom is not free")
    levels = [int(heading.tag[1]) for heading in root.all("h1", "h2", "h3", "h4", "h5", "h6")]
    expect(levels[:1] == [1] and levels.count(1) == 1, "the first heading is not the only h1")
    expect(all(after <= before + 1 for before, after in pairwise(levels)), "a heading is left out")
    expect(all(heading.text.strip() for heading in root.all("h1", "h2")), "a heading is empty")
    for control in root.all("input", "button", "select", "textarea"):
        expect(control.inside("form") is not None, f"<{control.tag}> is in no form")
        if control.tag == "button":
            expect(bool(control.text.strip()), "a button has no name")
        elif control.attributes.get("type") != "hidden":
            label = control.inside("label")
            expect(label is not None and bool(label.text.strip()), f"<{control.tag}> has no label")
            group = control.inside("fieldset")
            expect(group is not None and group.children[0].tag == "legend", "boxes have no legend")
    for form in root.all("form"):
        expect(form.attributes == {"method": "post"}, "a form goes elsewhere")
        expect(bool(form.all("button")), "a form has no button")
    # Plain elements say what they are; a word of ARIA could only contradict them. Scripts and foreign files there are none.
    for element in root.all():
        names = set(element.attributes)
        expect(
            not any(name == "role" or name.startswith(("aria-", "on")) for name in names), f"<{element.tag}> {names}"
        )
        expect("tabindex" not in names and "autofocus" not in names, "the order of the keyboard is disturbed")
        expect(element.tag not in ("script", "link", "img", "iframe", "table", "font"), f"<{element.tag}>")
        expect(not names & {"src", "href", "style", "action"}, f"<{element.tag}> {names}")
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    expect(len(ids) == len(set(ids)), "an id is there twice")
    return found


def style_of(source: str) -> str:
    """The page's style sheet."""
    return Page(source).root.all("style")[0].text


def schemes(style: str) -> dict[str, dict[str, str]]:
    """Light and dark, each with its colours by name."""
    light, dark = re.findall(r":root\s*{([^}]*)}", style)
    named = [dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block)) for block in (light, dark)]
    return {"light": named[0], "dark": named[0] | named[1]}


def contrast(one: str, other: str) -> float:
    """Between two colours, by WCAG 2.2: 1 for the same, 21 for black and white."""
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
