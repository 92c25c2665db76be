"""The whole mail of one recipient, as SES must put it together from what the core sends."""

from dataclasses import dataclass, field

from tests.oracle.content import Contact, Frozen, Rendered, render
from tests.oracle.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Stream:
    """Who sends, and under which numbers."""

    stream_id: int
    account_id: int = 3
    list_id: int = 5
    from_name: str | None = None
    from_email: str = "sarah@acme.example"
    reply_to: list[str] = field(default_factory=list)
    configuration_set: str | None = "mailrail"
    base_url: str = "https://mail.example.com"


@dataclass(frozen=True, slots=True)
class Mail:
    """One recipient's mail."""

    to: str
    content: Rendered
    headers: list[tuple[str, str]]
    tags: list[tuple[str, str]]


def assemble(frozen: Frozen, stream: Stream, contact: Contact, tokens: Tokens, *, seq: int, attempt: int) -> Mail:
    """What `contact` must receive as recipient `seq` in this attempt."""
    unsubscribe_url = f"{stream.base_url}/u/{_unsubscribe_token(stream, contact, tokens, seq)}"
    content = render(
        frozen,
        contact,
        track_token=tokens.track_token(stream.stream_id, seq),
        unsubscribe_url=unsubscribe_url,
    )
    headers = [
        ("List-Unsubscribe", f"<{unsubscribe_url}>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("X-Mailrail-Id", tokens.encode_id("eml", stream.stream_id, seq)),
    ]
    tags = [("mr", tokens.tag(stream.stream_id, seq, attempt))]
    return Mail(contact.email, content, headers, tags)


def _unsubscribe_token(stream: Stream, contact: Contact, tokens: Tokens, seq: int) -> str:
    return tokens.unsubscribe_token(stream.account_id, contact.contact_id, stream.list_id, stream.stream_id, seq)
