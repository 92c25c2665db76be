"""The OpenAPI document and the recorder that reads forms for it."""

import inspect
from typing import Any

import orjson

from mailrail.app import create_app
from mailrail.config import Settings
from mailrail.emails.form import read_mail
from mailrail.ids import Ids
from mailrail.web.document import partial
from mailrail.web.fields import Fields
from mailrail.web.recorder import Recorder, body_schema
from mailrail.webhooks.form import read_changes


def make_document() -> dict[str, Any]:
    """That of an app that is never started."""
    app = create_app(Settings(secret_key="k" * 40))
    document: dict[str, Any] = orjson.loads(app.ctx.reference.document)
    return document


def no_ids() -> Ids:
    """For forms that decode none."""
    return Ids.__new__(Ids)


def test_a_recorder_reads_whatever_a_form_may_read() -> None:
    readers = {name for name, _ in inspect.getmembers(Fields, inspect.isfunction) if not name.startswith("_")}
    # In a body in which nothing is given, these two say so as they are.
    assert readers - set(vars(Recorder)) == {"has", "is_text"}


def test_what_a_form_asks_for_is_what_its_schema_says() -> None:
    schema = body_schema(read_mail, no_ids())
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["to"]
    assert schema["allOf"] == [
        {"anyOf": [{"required": ["subject"]}, {"required": ["template"]}]},
        {"anyOf": [{"required": ["html"]}, {"required": ["text"]}, {"required": ["template"]}]},
    ]
    assert schema["properties"]["subject"]["maxLength"] == 998
    assert schema["properties"]["attachments"]["maxItems"] == 50
    assert schema["properties"]["attachments"]["items"]["required"] == ["filename", "content"]
    assert schema["properties"]["attachments"]["items"]["properties"]["disposition"]["enum"] == ["attachment", "inline"]


def test_null_is_allowed_where_it_means_something() -> None:
    properties = body_schema(read_changes, no_ids())["properties"]
    assert {"type": "null"} in properties["description"]["anyOf"]
    assert properties["url"]["type"] == "string"


def test_an_operation_says_what_it_costs_and_what_its_key_needs() -> None:
    paths = make_document()["paths"]
    send = paths["/v1/mail/campaigns/{campaign_id}/send"]["post"]
    assert (send["x-price"], send["security"]) == ("$0.0003/recipient", [{"apiKey": ["campaigns:send"]}])
    create = paths["/v1/mail/contacts"]["post"]
    assert (create["x-price"], create["summary"]) == ("Free", "Adds a contact to the audience")
    assert "`contact_exists`" in create["responses"]["409"]["description"]
    assert "security" not in paths["/healthz"]["get"]


def test_a_change_requires_nothing_and_null_clears_what_may_be_missing() -> None:
    def reads(fields: Fields) -> None:
        fields.required_text("name", 9)
        fields.text("note", 9)
        fields.nested("content").required_text("html", 9)

    loose = partial(body_schema(reads, no_ids()))
    assert "required" not in str(loose)
    assert loose["properties"]["name"]["type"] == "string"
    assert loose["properties"]["note"]["anyOf"][1] == {"type": "null"}
    assert loose["properties"]["content"]["properties"]["html"]["type"] == "string"


def test_a_list_that_a_form_judges_is_described_by_the_form() -> None:
    like = {"type": "array", "minItems": 3}
    schema = body_schema(lambda fields: fields.array("where", 4, like), no_ids())
    assert schema["properties"]["where"] == {"type": "array", "items": like, "maxItems": 4}
