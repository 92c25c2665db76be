"""The verbs of double opt-in: what a link asks, and taking the answer."""

from mailrail.accounts import service as accounts
from mailrail.accounts.model import AccountNotFound
from mailrail.confirmations.model import Question, Request, question
from mailrail.contacts import service as contacts
from mailrail.contacts.consent import Consent
from mailrail.contacts.model import ListNotFound
from mailrail.db.pool import Connection


async def find_question(conn: Connection, asked: Request) -> Question | None:
    """What the person is asked; None where the list or its account is gone."""
    try:
        account = await accounts.get(conn, asked.account_id)
        found = await contacts.get_list(conn, asked.account_id, asked.list_id)
    except (AccountNotFound, ListNotFound):
        return None
    return question(account.name, found.name, found.confirmation.wording)


async def confirm(conn: Connection, asked: Request, words: Question, ip: str | None) -> bool:
    """Takes the person's yes, with where it came from. Doing it twice changes nothing.

    False where nobody waits for it: the person left the list since, or the contact is gone.
    """
    consent = Consent(ip=ip, wording=words.wording)
    return await contacts.confirm(conn, asked.account_id, asked.contact_id, asked.list_id, consent)
