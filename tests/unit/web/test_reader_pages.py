"""All pages that readers of mail see can be read by everybody: WCAG 2.2 AA as far as a program judges it."""

import re

import pytest

from mailrail import _core
from mailrail.confirmations import pages as confirmations
from mailrail.confirmations.model import question
from mailrail.contacts.model import ContactStatus, Offer
from mailrail.ids import Ids
from mailrail.preferences import pages as preferences
from mailrail.preferences.model import Answer, Change, Reader, Standing, Wish
from mailrail.web.reader_pages import missing_page
from tests.support.readable import contrast, problems, schemes, style_of

IDS = Ids(_core.Codec(b"k" * 40))
NAME = 'Acme & <b>Sons</b> "Ltd"'
OFFERS = tuple(
    Offer(number, f"List {number} </label><script>", status)
    for number, status in enumerate([*ContactStatus, None], 1)
    if status in (None, ContactStatus.SUBSCRIBED, ContactStatus.PENDING, ContactStatus.UNSUBSCRIBED)
)
ASKED = question(NAME, "Tips & <Tricks>", "I want\n<it>.")


def readers() -> list[Reader]:
    """Everybody who can come to the page."""
    people = [
        Reader(NAME, standing, 7, "ann@example.com", named, choices)
        for standing in (Standing.GETS, Standing.LEFT, Standing.BOUNCED, Standing.COMPLAINED, Standing.SUPPRESSED)
        for named in (None, *OFFERS)
        for choices in ((), (OFFERS[0],), OFFERS)
    ]
    gone = [Reader(NAME, standing, None, "ann@example.com", None, ()) for standing in (Standing.GETS, Standing.LEFT)]
    return [*people, *gone, Reader(NAME, Standing.NOBODY, None, None, None, ())]


def all_pages() -> dict[str, str]:
    """Every page by what it is of."""
    found = {
        "missing": missing_page(),
        "unclear": preferences.unclear_page(),
        "confirm": confirmations.confirm_page(ASKED),
        "confirmed": confirmations.confirmed_page(ASKED),
        "over": confirmations.over_page(),
        "unclear yes": confirmations.unclear_page(),
    }
    changes = (Change(), Change(("A",), ("B", "<C>")), Change(left_all=True), Change(("A",), came_back=True))
    for number, reader in enumerate(readers()):
        found[f"ask {number}"] = preferences.asking_page(reader, IDS)
        for wish in Wish:
            for place, change in enumerate(changes if wish is Wish.CHOOSE else changes[:1]):
                found[f"{wish.name} {place} {number}"] = preferences.done_page(reader, Answer(wish), change, IDS)
    return found


PAGES = all_pages()


def test_no_page_has_a_problem() -> None:
    assert {name: found for name, page in PAGES.items() if (found := problems(page))} == {}


def test_what_customers_write_stays_text() -> None:
    for name, page in PAGES.items():
        assert not any(mark in page for mark in ("<script", "<b>", "Tips & <T")), name


def test_no_page_shows_an_address_in_full() -> None:
    assert [name for name, page in PAGES.items() if "ann@example.com" in page] == []


@pytest.mark.parametrize(
    ("one", "other", "at_least"),
    [
        # Text (1.4.3), for which the page asks more of itself; then edges of controls and the ring of the focus (1.4.11).
        ("ink", "page", 7),
        ("quiet", "page", 4.5),
        ("on-action", "action", 4.5),
        ("action", "page", 3),
        ("focus", "page", 3),
        ("ink", "page", 3),
    ],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrasts(scheme: str, one: str, other: str, at_least: float) -> None:
    colours = schemes(style_of(missing_page()))[scheme]
    assert contrast(colours[one], colours[other]) >= at_least


def test_the_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == 21
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_targets_are_large_and_the_focus_is_seen() -> None:
    style = style_of(missing_page())
    rules = dict(re.findall(r"^(?:@media[^{]*{ )?([\w.: ,-]+) {([^}]*)}", style, re.MULTILINE))
    # 24 CSS pixels are the least (2.5.8); one rem is 16 of them unless the reader wants more.
    heights = {name: float(re.findall(r"min-height: ([\d.]+)rem", rules[name])[0]) * 16 for name in ("label", "button")}
    assert min(heights.values()) >= 44
    assert float(re.findall(r"width: ([\d.]+)rem", rules["input"])[0]) * 16 >= 24
    assert "outline: 3px solid" in rules[":focus-visible"]
    assert "outline: 0" not in style
    assert "outline: none" not in style
    # Sizes follow the reader's own, and long names break instead of widening the page (1.4.4, 1.4.10).
    assert not re.search(r"font[^;]*\dpx", style)
    assert "overflow-wrap: anywhere" in rules["body"]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("<input type=checkbox name=a>", "<input> has no label"),
        ("<label><input type=checkbox name=a></label>", "<input> has no label"),
        ("<h3>x</h3>", "a heading is left out"),
        ("<h1>x</h1>", "the first heading is not the only h1"),
        ("<form method=post action=/x><button>x</button></form>", "a form goes elsewhere"),
        ("<form method=post><button></button></form>", "a button has no name"),
        ("<form method=get><button>x</button></form>", "a form goes elsewhere"),
        ("<p tabindex=1>x</p>", "the order of the keyboard is disturbed"),
        ("<p role=button>x</p>", "<p> {'role'}"),
        ("<script>x</script>", "<script>"),
        ("<img src=x>", "<img>"),
    ],
)
def test_a_problem_is_seen(source: str, problem: str) -> None:
    assert problem in problems(missing_page().replace("</main>", f"{source}</main>"))


def test_broken_markup_is_seen() -> None:
    for broken in ("<p>", "</p>", "<p a=1 a=2></p>"):
        with pytest.raises(AssertionError):
            problems(missing_page().replace("</main>", f"{broken}</main>"))
