"""What a POST to the page says: a mail program's one click (RFC 8058), or one of the page's forms."""

from collections.abc import Mapping, Sequence

from mailrail.ids import Ids, Kind
from mailrail.preferences.model import Answer, Wish

_BUTTONS = {
    ("List-Unsubscribe", "One-Click"): Answer(Wish.LEAVE_LIST, is_one_click=True),
    ("unsubscribe", "list"): Answer(Wish.LEAVE_LIST),
    ("unsubscribe", "all"): Answer(Wish.LEAVE_ALL),
    ("subscribe", "list"): Answer(Wish.JOIN_LIST),
    ("subscribe", "all"): Answer(Wish.RETURN),
}


def read_answer(said: Mapping[str, Sequence[str]], ids: Ids) -> Answer | None:
    """The answer, or None for a POST that is none of ours. Ids of lists that are none are passed over."""
    pressed = [answer for (name, value), answer in _BUTTONS.items() if list(said.get(name, ())) == [value]]
    if pressed:
        return pressed[0]
    if list(said.get("choose", ())) == ["lists"]:
        seen, ticked = (
            frozenset(ids.find(Kind.LIST, text) for text in said.get(name, ())) for name in ("seen", "list")
        )
        return Answer(Wish.CHOOSE, seen=seen, ticked=ticked)
    return None
