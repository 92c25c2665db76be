"""What goes over the wire: a message as JSON, and the signatures that prove whose it is.

The JSON is compact and has no floats, no maps with keys of customers, and nothing that JavaScript would write otherwise: a
receiver that parses it and prints it again (`JSON.stringify(req.body)`) has the very bytes that were signed.
"""

import base64
import hmac
from datetime import datetime
from typing import Any

import orjson

from mailrail.ids import Ids, Kind
from mailrail.web.values import shown_time
from mailrail.webhooks.model import SECRET_PREFIX, TEST_TYPE, Message, Secrets

BODY_MAX_BYTES = 64 * 1024
USER_AGENT = "mailrail webhooks"
# The seeds' sample verifies this one: hex HMAC-SHA256 of the body, keyed by the whole text of the secret.
SIGNATURE_HEADER = "x-webhook-signature"


def body_of(message: Message, ids: Ids) -> bytes:
    """`{"type":…,"data":{…}}`, the same bytes whenever it is made."""
    return orjson.dumps({"type": message.type, "data": _data(message, ids)})


def _data(message: Message, ids: Ids) -> dict[str, Any]:
    about = message.type.partition(".")[0]
    facts = message.facts
    data: dict[str, Any] = {"eventId": ids.encode(Kind.WEBHOOK_MESSAGE, message.id)}
    if about == "email" and message.stream_id is not None and message.seq is not None:
        data |= {
            "emailId": ids.encode_email(message.stream_id, message.seq),
            "to": facts.get("to"),
            "subject": facts.get("subject"),
            "campaignId": ids.encode_optional(Kind.CAMPAIGN, message.campaign_id),
            "contactId": ids.encode_optional(Kind.CONTACT, message.contact_id),
            "tags": [_tag(text) for text in facts.get("tags", [])],
            "test": facts.get("test", False),
        }
        data |= {name: facts[name] for name in ("bounceType", "reason", "link", "machine") if name in facts}
    elif about == "campaign":
        data |= {
            "campaignId": ids.encode_optional(Kind.CAMPAIGN, message.campaign_id),
            "name": facts.get("name"),
            "audienceCount": facts.get("audienceCount"),
        }
    elif about == "contact":
        data |= {
            "contactId": ids.encode_optional(Kind.CONTACT, message.contact_id),
            "email": facts.get("email"),
            "listId": ids.encode_optional(Kind.LIST, message.list_id),
        }
    elif about == "domain":
        data |= {"domainId": ids.encode_optional(Kind.DOMAIN, message.domain_id), "domain": facts.get("domain")}
    elif message.type == TEST_TYPE:
        data["message"] = "This is a test. Nothing happened."
    return data | {"createdAt": shown_time(message.at)}


def _tag(text: str) -> dict[str, str]:
    name, _, value = text.partition("=")
    return {"name": name, "value": value}


def headers_of(message_id: str, at: datetime) -> dict[str, str]:
    """All headers of a try but its signatures."""
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
    }


def signatures_of(body: bytes, headers: dict[str, str], secrets: Secrets) -> dict[str, str]:
    """Both kinds: the seeds' and that of Standard Webhooks 1.0.0, which has one for each secret that is valid."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    valid = [secret for secret in (secrets.current, secrets.previous) if secret is not None]
    return {
        SIGNATURE_HEADER: hmac.digest(secrets.current.encode(), body, "sha256").hex(),
        "webhook-signature": " ".join(f"v1,{_standard(secret, signed)}" for secret in valid),
    }


def _standard(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
