"""What the API reads of accounts and keys."""

from mailrail.accounts.model import KeyDraft, Scope, Tracking, UnknownPolicy
from mailrail.web.fields import Fields

NAME_MAX_CHARS = 200
POSTAL_ADDRESS_MAX_CHARS = 500
# OPERATOR is given on the command line alone.
GIVEN_SCOPES = tuple(str(scope) for scope in Scope if scope is not Scope.OPERATOR)


def read_key(fields: Fields) -> KeyDraft:
    """`name`, `scopes` (those of the maker where they are not given) and `test`."""
    name = fields.required_text("name", NAME_MAX_CHARS)
    words = fields.choices("scopes", GIVEN_SCOPES)
    if words == []:
        fields.error(
            "scopes", "field_empty", "scopes must name at least one scope; without the field it has all of yours."
        )
    scopes = None if words is None else [Scope(word) for word in words if word in GIVEN_SCOPES]
    return KeyDraft(name, scopes, fields.boolean("test") or False)


def read_changes(fields: Fields) -> dict[str, str | bool | None]:
    """What of the account is to change, by the names of `accounts.service.SETTINGS`. null clears what may be empty."""
    name = fields.text("name", NAME_MAX_CHARS)
    if name is not None and not name.strip():
        fields.error("name", "field_empty", "name must not be empty.")
    given: dict[str, str | bool | None] = {
        "name": name,
        "sender_name": fields.text("senderName", NAME_MAX_CHARS),
        "sender_email": fields.address("senderEmail"),
        "postal_address": fields.text("postalAddress", POSTAL_ADDRESS_MAX_CHARS, lines=True),
        "track_opens": fields.boolean("trackOpens"),
        "track_clicks": fields.boolean("trackClicks"),
        "unknown_policy": fields.word("unknownPolicy", [str(policy) for policy in UnknownPolicy]),
    }
    clearable = {"sender_name": "senderName", "sender_email": "senderEmail", "postal_address": "postalAddress"}
    cleared = {column for column, param in clearable.items() if fields.is_null(param)}
    return {column: value for column, value in given.items() if value is not None or column in cleared}


def read_tracking(fields: Fields) -> Tracking:
    """`tracking` of a mail or a campaign, with `opens` and `clicks`; what is not said is on."""
    given = fields.nested("tracking")
    return Tracking(given.boolean("opens") is not False, given.boolean("clicks") is not False)
