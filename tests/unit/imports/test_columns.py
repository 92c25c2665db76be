"""What columns mean by their names, and by a mapping."""

import pytest

from mailrail.imports.form import values_of_texts
from mailrail.imports.model import ColumnsInvalid, Counts, is_target, read_columns


def targets(names: list[str], mapping: dict[str, str | None] | None = None) -> list[str | None]:
    return [target for _, target in read_columns(names, ",", mapping or {}).targets]


def test_exports_of_others_map_themselves() -> None:
    mailchimp = ["Email Address", "First Name", "Last Name", "Phone Number", "TAGS", "OPTIN_TIME"]
    assert targets(mailchimp) == [
        "email",
        "firstName",
        "lastName",
        "customFields.Phone_Number",
        "tags",
        "customFields.OPTIN_TIME",
    ]
    listmonk = ["uuid", "email", "name", "attributes", "status", "created_at"]
    assert targets(listmonk) == [
        "customFields.uuid",
        "email",
        "name",
        "customFields",
        "status",
        "customFields.created_at",
    ]
    assert targets(["E-mail", "firstName", "FNAME2", "customFields.plan", "customFields.0", "", "ä", "1st"]) == [
        "email",
        "firstName",
        "customFields.FNAME2",
        "customFields.plan",
        None,
        None,
        None,
        None,
    ]


def test_whether_somebody_is_tracked_is_no_custom_field() -> None:
    assert targets(["email", "Tracking", "tracking_number"]) == ["email", "tracking", "customFields.tracking_number"]
    assert targets(["email", "tracking"], {"tracking": "customFields.tracking"})[1] == "customFields.tracking"


def test_a_mapping_outweighs_the_names() -> None:
    assert targets(["email", "Second", "Junk"], {"email": None, "Second": "email", "Junk": None}) == [
        None,
        "email",
        None,
    ]


@pytest.mark.parametrize(
    ("names", "mapping", "words"),
    [
        (["name"], {}, "No column is the email address"),
        ([], {}, "no columns"),
        (["email"], {"mail": "email"}, "no column 'mail'"),
        (["email", "Mail"], {}, "Two columns mean email"),
        (["email", "a b", "a-b"], {}, "Two columns mean customFields.a_b"),
        (["email", "email"], {}, "Two columns mean email"),
    ],
)
def test_columns_that_do_not_name_an_address_once_are_refused(
    names: list[str], mapping: dict[str, str | None], words: str
) -> None:
    with pytest.raises(ColumnsInvalid, match=words) as raised:
        read_columns(names, ",", mapping)
    assert all(name in str(raised.value) for name in names)


def test_targets_are_fields_of_a_contact() -> None:
    assert all(map(is_target, ("email", "tags", "tracking", "customFields", "customFields.a_1")))
    assert not any(map(is_target, ("Email", "customFields.", "customFields.0a", "customFields.mailrail", "id", "")))


def test_texts_of_a_query_or_form_become_values() -> None:
    texts = {
        "tags": ["a, b", "c"],
        "upsert": ["FALSE"],
        "mapping": ['{"x": null}'],
        "consent.source": ["fair"],
        "odd": ["1"],
    }
    assert values_of_texts(texts) == {
        "odd": "1",
        "tags": ["a", "b", "c"],
        "upsert": False,
        "mapping": {"x": None},
        "consent": {"source": "fair"},
    }
    assert values_of_texts({"upsert": ["maybe"], "mapping": ["{"], "tags": [""], "listId": [""]}) == {
        "upsert": "maybe",
        "mapping": "{",
    }


def test_counts_add_up() -> None:
    assert Counts(1, 2, 3, 4, 5, 6).rows == 21
