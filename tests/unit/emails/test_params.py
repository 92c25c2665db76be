"""Errors of the core blame fields by the names that the request has for them."""

from datetime import UTC, datetime

import pytest

from mailrail.accounts.model import Account, Plan, UnknownPolicy
from mailrail.config import Settings
from mailrail.emails.form import read_mail
from mailrail.emails.service import MailInvalid, prepare, written_param
from mailrail.ids import Ids
from mailrail.web.fields import Fields

ACCOUNT = Account(
    1, "Acme", Plan.STARTER, 300, None, None, None, False, False, UnknownPolicy.RESEND, datetime(2026, 1, 1, tzinfo=UTC)
)


def test_a_bad_attachment_is_blamed_by_the_fields_of_the_request() -> None:
    attachment = {"filename": "a.png", "content": "aGk=", "contentType": "no type", "contentId": "a b"}
    fields = Fields({"to": "a@example.com", "subject": "S", "text": "T", "attachments": [attachment]})
    draft = read_mail(fields, Ids.__new__(Ids))
    fields.finish()
    with pytest.raises(MailInvalid) as raised:
        prepare(draft, (None, "you@acme.com"), ACCOUNT, Settings(secret_key="k" * 40))
    assert {"attachments[0].contentType", "attachments[0].contentId"} <= {param for _, _, param in raised.value.errors}


@pytest.mark.parametrize(
    ("of_the_core", "of_the_request"),
    [("reply_to[0].email", "replyTo[0].email"), ("headers.content_type", "headers.content_type"), ("html", "html")],
)
def test_only_names_of_ours_are_rewritten(of_the_core: str, of_the_request: str) -> None:
    assert written_param(of_the_core) == of_the_request
