"""The hardest recipients that a campaign can have: whoever's mail arrives by slots, all others' will."""

from typing import Any

from mailrail.contacts.form import NAME_MAX_CHARS

# What HTML, templates, JSON and headers each have a meaning for; scripts of all lengths and directions; line ends, which a
# subject loses; and the braces and backslashes at the ends that meet those of a slot.
HARD = "}\\<b>&amp;\"'`</b> {{x}} {{{y}}} {{#if z}}{{/if}} {% raw %} }} \\{{ \\\\ Ünï © 漢字 שלום مرحبا 😀👩‍🚀\r\n\t$& %s \\u0041 {"
# Whole repetitions, so that both ends are those of a value.
LONG = HARD * -(-NAME_MAX_CHARS // len(HARD))
# Built in beside the custom fields.
_BUILT_IN = frozenset(("firstName", "lastName", "name", "email", "unsubscribeUrl"))


def candidates(frozen: dict[str, Any], sample: dict[str, Any]) -> list[dict[str, Any]]:
    """Contacts with the hardest values, the hardest first, as the core's preview takes them. A template may work with a field
    as with a number or a list, so the second has only the fields of `sample`, a recipient, in their shape.

    Texts are as long as a name may be: what is too long for slots the core counts itself, recipient by recipient.
    """
    fields = {name: LONG for name in frozen["variables"] if name not in _BUILT_IN}
    shaped = {name: _with_hard_texts(value) for name, value in sample.items() if name in fields}
    return [_contact(fields), _contact(shaped)]


def bare() -> dict[str, Any]:
    """A contact of whom nothing but the address is known."""
    return {"name": None, "first_name": None, "last_name": None, "custom_fields": {}}


def _contact(custom_fields: dict[str, Any]) -> dict[str, Any]:
    return {"name": LONG, "first_name": LONG, "last_name": LONG, "custom_fields": custom_fields}


def _with_hard_texts(value: Any) -> Any:
    """The same value with other texts: nobody's own words leave for a mailbox of Amazon's."""
    if isinstance(value, str):
        return LONG
    if isinstance(value, list):
        return [_with_hard_texts(one) for one in value]
    if isinstance(value, dict):
        return {name: _with_hard_texts(one) for name, one in value.items()}
    return value
