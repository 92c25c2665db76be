"""The page behind the link to unsubscribe: what the reader asked for first, all else below it.

The choice is a form of its own, so that the Enter key on a box saves and does not unsubscribe.
"""

from html import escape

from mailrail.contacts.model import ContactStatus, Offer
from mailrail.ids import Ids, Kind
from mailrail.preferences import words
from mailrail.preferences.model import Answer, Change, Reader, Standing, masked
from mailrail.web.reader_pages import button, page


def asking_page(reader: Reader, ids: Ids) -> str:
    """Asks; only the forms act."""
    return _page(reader, ids, words.title(reader), words.situation(reader))


def done_page(reader: Reader, answer: Answer, change: Change, ids: Ids) -> str:
    """Says what was done, and how to undo it: it is the same page, with the reader as he is now."""
    if reader.standing not in (Standing.GETS, Standing.LEFT):
        return asking_page(reader, ids)
    title, said = words.outcome(answer, reader, change)
    return _page(reader, ids, title, said)


def unclear_page() -> str:
    """For a POST that is neither a form of the page nor a mail program's one click."""
    return page(words.UNCLEAR_TITLE, f"<p>{words.UNCLEAR}</p>")


def _page(reader: Reader, ids: Ids, title: str, said: list[str]) -> str:
    whom = [] if reader.email is None else [words.whom(masked(reader.email))]
    sentences = "".join(f"<p>{escape(one)}</p>" for one in [*said, *whom])
    return page(title, sentences + _buttons(reader) + _choice(reader, ids), reader.account)


def _buttons(reader: Reader) -> str:
    """The one thing that most readers come for, by one button without a choice."""
    match reader.standing:
        case Standing.GETS:
            first = "" if reader.list is None else _button_of(reader, reader.list)
            return _form(first, button("unsubscribe", "all", words.leave_all(reader), other=reader.list is not None))
        case Standing.LEFT if reader.may_return:
            return f"<p>{escape(words.before(reader))}</p>" + _form(
                button("subscribe", "all", words.come_back(reader), other=True)
            )
        case _:
            return ""


def _button_of(reader: Reader, offer: Offer) -> str:
    if offer.status is ContactStatus.UNSUBSCRIBED:
        return button("subscribe", "list", words.join_list(offer), other=True) if reader.may_return else ""
    return button("unsubscribe", "list", words.LEAVE_LIST)


def _choice(reader: Reader, ids: Ids) -> str:
    """A box for each list; none where the buttons say it all."""
    if not reader.may_return or {offer.list_id for offer in reader.choices} <= {reader.list and reader.list.list_id}:
        return ""
    boxes = "".join(_box(offer, ids, is_on=reader.gets(offer)) for offer in reader.choices)
    save = button("choose", "lists", words.SAVE, other=True)
    return f"<h2>{words.CHOICE}</h2>" + _form(
        f"<fieldset><legend>{escape(words.legend(reader))}</legend>{boxes}</fieldset>", save
    )


def _box(offer: Offer, ids: Ids, *, is_on: bool) -> str:
    # What is not ticked is not sent, so the form says which lists the reader saw.
    list_id = ids.encode(Kind.LIST, offer.list_id)
    checked = " checked" if is_on else ""
    return (
        f'<input type="hidden" name="seen" value="{list_id}">'
        f'<label><input type="checkbox" name="list" value="{list_id}"{checked}>{escape(offer.name)}</label>'
    )


def _form(*parts: str) -> str:
    return f'<form method="post">{"".join(parts)}</form>'
