"""All that the page says, in plain text; what a reader agrees to by a button or a box is kept in these words.

In English, the only language so far: another one is another set of these functions.
"""

from collections.abc import Sequence

from mailrail.contacts.model import ContactStatus, Offer
from mailrail.preferences.model import Answer, Change, Reader, Standing, Wish

# What a mail program's one click says, in the words of RFC 8058.
ONE_CLICK = "List-Unsubscribe=One-Click"
LEAVE_LIST = "Unsubscribe from this list"
CHOICE = "Choose what you get"
SAVE = "Save my choice"
UNCLEAR_TITLE = "Nothing was changed"
UNCLEAR = "Please use the buttons of the unsubscribe page."


def leave_all(reader: Reader) -> str:
    """The button that ends everything."""
    return "Unsubscribe" if reader.list is None else f"Unsubscribe from all mail of {reader.account}"


def join_list(offer: Offer) -> str:
    """The button that brings back one list."""
    return f"Get the list “{offer.name}” again"


def come_back(reader: Reader) -> str:
    """The button that brings back what there was."""
    return f"Get mail of {reader.account} again"


def legend(reader: Reader) -> str:
    """Above the boxes."""
    return f"I want the mail of these lists of {reader.account}:"


def ticked(reader: Reader, offer: Offer, *, is_on: bool) -> str:
    """What a box says of its list."""
    return f"{legend(reader)} {'☑' if is_on else '☐'} {offer.name}"


def pressed(reader: Reader, answer: Answer) -> str:
    """What the button says by which the reader answered."""
    if answer.is_one_click:
        return ONE_CLICK
    match answer.wish:
        case Wish.LEAVE_LIST if reader.list is not None:
            return LEAVE_LIST
        case Wish.JOIN_LIST if reader.list is not None:
            return join_list(reader.list)
        case Wish.RETURN | Wish.JOIN_LIST:
            return come_back(reader)
        case _:
            return leave_all(reader)


# —— how it stands ——————————————————————————————————————————————————————————————————————————————————————————————————————


def title(reader: Reader) -> str:
    """Of the page before anything is done."""
    match reader.standing:
        case Standing.GETS:
            return "Unsubscribe"
        case Standing.LEFT:
            return "You are unsubscribed"
        case _:
            return "You get no mail"


def situation(reader: Reader) -> list[str]:
    """Why this page, and what the reader gets."""
    match reader.standing:
        case Standing.GETS if reader.list is not None and reader.list.status is ContactStatus.UNSUBSCRIBED:
            return [f"You left the list “{reader.list.name}”. You may still get other mail of {reader.account}."]
        case Standing.GETS if reader.list is not None:
            return [f"This mail came to you by the list “{reader.list.name}” of {reader.account}."]
        case Standing.GETS:
            return [f"With this button you get no more mail of {reader.account}."]
        case Standing.LEFT:
            return [f"All mail of {reader.account} ended for you, but for receipts and the like."]
        case Standing.BOUNCED:
            return [f"Mail to this address came back. Tell {reader.account} if it works again, or which one to use."]
        case Standing.COMPLAINED:
            return [f"Mail to this address was marked as spam. Write to {reader.account} if you want mail again."]
        case Standing.SUPPRESSED:
            return [f"{reader.account} does not send to this address. Write to them if you want mail again."]
        case Standing.NOBODY:
            return ["Nobody’s address is behind this link: it is of a preview, or the address was deleted."]


def whom(address: str) -> str:
    """Whose page it is; a mail may have been forwarded."""
    return f"This page is about the address {address}."


def before(reader: Reader) -> str:
    """What comes back to a reader who left everything."""
    names = [offer.name for offer in reader.choices if offer.status is ContactStatus.SUBSCRIBED]
    lists = f"the mail of {quoted(names)}, and " if names else ""
    return f"You can have back what you got before: {lists}mail that goes to everybody."


# —— what was done ——————————————————————————————————————————————————————————————————————————————————————————————————————


def outcome(answer: Answer, after: Reader, change: Change) -> tuple[str, list[str]]:
    """Title and sentences that say what the answer came to: the same for an answer that came twice."""
    match answer.wish:
        case Wish.LEAVE_LIST | Wish.LEAVE_ALL:
            return "You are unsubscribed", [_gone(answer, after)]
        case Wish.JOIN_LIST | Wish.RETURN:
            what = f"the mail of “{after.list.name}”" if answer.wish is Wish.JOIN_LIST and after.list else "mail"
            return "You are subscribed again", [f"You will get {what} from {after.account} again."]
        case Wish.CHOOSE if change == Change():
            return "Nothing was changed", ["You had chosen the same before."]
        case Wish.CHOOSE:
            return "Your choice is saved", list(_chosen(after, change))


def _gone(answer: Answer, after: Reader) -> str:
    if answer.wish is Wish.LEAVE_ALL or after.list is None or after.standing is not Standing.GETS:
        return f"You will get no more mail from {after.account}."
    return f"You will get no more mail of the list “{after.list.name}” from {after.account}."


def _chosen(after: Reader, change: Change) -> Sequence[str]:
    said = []
    if change.joined:
        said.append(f"You will get from now on: {quoted(change.joined)}.")
    if change.left:
        said.append(f"You will get no more: {quoted(change.left)}.")
    if change.came_back:
        said.append(f"You had unsubscribed from all mail of {after.account}; that is over.")
    elif not any(map(after.gets, after.choices)):
        said.append(f"Mail of {after.account} that goes to everybody still comes. The button below ends that, too.")
    return said


def quoted(names: Sequence[str]) -> str:
    """Names of lists in a sentence."""
    return ", ".join(f"“{name}”" for name in names)
