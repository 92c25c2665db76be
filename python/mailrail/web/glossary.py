"""What the fields of bodies mean, for the document: one sentence a name, since a name means the same wherever it stands. Where it
does not, the name has what it stands in before it: an object, or the last word of the path.
"""

from collections.abc import Mapping
from typing import Any

WORDS: Mapping[str, str] = {
    "accountId": "Whose wallet it is.",
    "amount": 'In US dollars, as "12.50"; or give `amountMicros`.',
    "amountMicros": "In millionths of a dollar.",
    "at": "When they said so; without it now.",
    "attachments": "Files that come with the mail.",
    "attachments.content": "The file in base64.",
    "attachments.contentId": "By which the HTML shows it, as `cid:logo`.",
    "attachments.contentType": "Its media type; without it the name tells.",
    "attachments.disposition": "`inline` for what the HTML shows.",
    "attachments.filename": "What it is called.",
    "audience": "Whom it goes to; without it everybody who is subscribed.",
    "bcc": "Who gets it unseen by the others.",
    "cc": "Who else gets it.",
    "confirmation": "How the list asks.",
    "confirmation.from": "Who asks, of a verified domain; without it the account's default sender.",
    "confirmation.subject": "Of the mail that asks.",
    "confirmation.wording": "What people agree to; it stands in the mail and on the page, and is kept with their yes.",
    "consent": "How these people agreed to mail.",
    "contact": "A made-up reader, for whom the mail is rendered.",
    "contactId": "The contact for whom the mail is rendered.",
    "contacts": "The contacts by their ids; in an import all of each, where keys that a contact has not become custom fields.",
    "content": "The HTML; a template in the language of Jinja2.",
    "customFields": "Whatever you know of the person, for templates: any JSON under names like variables.",
    "description": "A note of your own.",
    "domain": "As `example.com`; its subdomains may be sent from, too.",
    "doubleOptIn": "Whether whoever is put on the list is asked by mail first.",
    "email": "The address.",
    "emails": "Several at once: mails, each as for a single one, or addresses.",
    "events": "What to hear of; `*` is everything.",
    "exclude": "Who is left out, in the same words.",
    "firstName": "Without it the first word of `name`.",
    "from": "The sender, of a verified domain: an address, `Name <address>`, or both apart. Without it the account's.",
    "headers": "Headers of the mail beside those that mailrail sets.",
    "holdId": "The hold from which it was captured.",
    "html": "The HTML part.",
    "ifVersion": "The version from which the change was made; if there is a newer one, nothing changes.",
    "ip": "From where they agreed, as an IPv4 or IPv6 address.",
    "isActive": "`false` sends nothing there for the time being.",
    "key": "A name for this movement, by which it happens only once.",
    "lastName": "Without it what follows the first word of `name`.",
    "listId": "The list.",
    "lists": "Members of any of these lists.",
    "mailFrom": "Whose name stands in MAIL FROM, a domain below; without it `bounce.` and the domain, null leaves it to Amazon.",
    "mapping": 'Which column or key is which field: `{"Mail": "email", "Age": null}`; null leaves it out.',
    "markSubject": "Puts [Test] before the subject.",
    "monthlyCapMicros": "What sends of a month (UTC) may cost, in millionths of a dollar; null is no cap.",
    "name": "What it is called.",
    "postalAddress": "Stands in the footer of campaigns.",
    "preheader": "What inboxes show behind the subject.",
    "public": "Whether the readers of all mail may join the list, on the page behind the link to unsubscribe.",
    "replay.from": "The time from which on.",
    "replay.status": "Only of this status; without it however they ended.",
    "replay.to": "The time before which; without it until now.",
    "replay.types": "Only of these types of event; without it of all.",
    "replyTo": "Where answers go.",
    "scheduledAt": "When to send; without it at once.",
    "scopes": "What the key may do; without it all that yours may.",
    "senderEmail": "The sender of mail that names none; of a verified domain.",
    "senderName": "Its name.",
    "source": "Where they agreed.",
    "states": "Who is tried again: `failed`, `unresolved`, or both, as without it.",
    "status": "Whether the person gets mail; without it `subscribed`.",
    "subject": "The subject; of a campaign it is a template, too.",
    "tags": "Labels. A campaign reaches who has all of them.",
    "template": "A stored template by its id or its name, in place of a content.",
    "templateVersion": "Which version of it; the newest without it.",
    "test": "Mail of a test key reaches nobody, and its events are played.",
    "text": "The plain text part; without it one is made from the HTML.",
    "to": "Who gets it: an address, `Name <address>`, or a list of them.",
    "clickTracking": "Whether links in mail from the domain lead by way of mailrail, so that clicks are known.",
    "openTracking": "Whether a picture in mail from the domain tells that it was opened.",
    "tracking": "What may be known of its reader; whatever account, domain or contact switch off stays off.",
    "tracking.clicks": "Whether links lead by way of mailrail.",
    "tracking.opens": "Whether a picture tells that it was opened.",
    "trackClicks": "Whether links lead by way of mailrail, so that clicks are known.",
    "trackOpens": "Whether a picture tells that a mail was opened.",
    "unknownPolicy": "What becomes of recipients of whom nobody knows whether Amazon SES took their mail.",
    "upsert": "Whether known contacts are changed; true without it.",
    "url": "Where messages are posted; https, and no address inside a private network.",
    "variables": "Values for `{{ name }}` in subject, html and text.",
    "version": "Which version; the newest without it.",
    "where": 'Conditions, all of which hold: [field, operator, value], as `["customFields.plan", "=", "pro"]`.',
    "wording": "What they agreed to, word for word.",
}


def explained(schema: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """The schema with the words for its fields and for those within."""
    told = dict(schema)
    if "properties" in told:
        told["properties"] = {name: _property(name, within, inner) for name, inner in told["properties"].items()}
    if "items" in told:
        told["items"] = explained(told["items"], within)
    if "anyOf" in told:
        told["anyOf"] = [explained(one, within) for one in told["anyOf"]]
    return told


def _property(name: str, within: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    words = WORDS.get(f"{within}.{name}") or WORDS.get(name)
    return {**({"description": words} if words else {}), **explained(schema, name)}
