"""What the API reads of suppressions."""

from mailrail.addresses import ADDRESS_MAX_CHARS
from mailrail.suppressions.model import ENTRIES_MAX, Reason, SuppressionFilter
from mailrail.web.fields import Fields


def read_entries(fields: Fields) -> list[str]:
    """`email` or `emails`: whom to suppress. The caller finishes the fields."""
    one, many = fields.address("email"), fields.addresses("emails", ENTRIES_MAX)
    if one is not None and many:
        fields.error("emails", "field_unknown", "Give email for one address or emails for several, not both.")
    elif one is None and not many and not fields.has("email"):
        fields.error("emails", "field_missing", f"emails is required: a list of 1 to {ENTRIES_MAX} addresses.")
    return many or [one or ""]


def read_reason_otherwise(text: str | None) -> Reason:
    """What rows of a list have that give no reason; `imported` unless the query says so. Raises FieldsInvalid."""
    fields = Fields({"reason": text})
    word = fields.word("reason", [str(one) for one in Reason if one is not Reason.UNSUBSCRIBE])
    fields.finish()
    return Reason(word) if word else Reason.IMPORTED


def read_filter(fields: Fields) -> SuppressionFilter:
    """`reason` and `email` of the query. The caller finishes the fields."""
    reason = fields.word("reason", [str(word) for word in Reason])
    email = fields.text("email", ADDRESS_MAX_CHARS)
    return SuppressionFilter(Reason(reason) if reason in set(Reason) else None, email)
