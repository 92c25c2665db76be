"""The OpenAPI document as it is served: valid, complete, and true to its own examples."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import jsonschema_rs
import orjson
import pytest
import schemathesis

from mailrail.app import create_app
from mailrail.config import Settings
from mailrail.web.context import App
from mailrail.web.glossary import WORDS
from mailrail.web.openapi import JSON, Operation


@pytest.fixture(scope="module")
def app() -> App:
    """An app that is never started."""
    return create_app(Settings(secret_key="k" * 40))


@pytest.fixture(scope="module")
def document(app: App) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(app.ctx.reference.document)
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield method, path, described


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a document."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(inner)


def test_it_is_valid(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()


def test_every_route_is_in_it_and_nothing_else(app: App, document: dict[str, Any]) -> None:
    routed = {
        (method.lower(), "/" + re.sub(r"<(\w+):\w+>", r"{\1}", route.path))
        for route in app.router.routes
        for method in route.methods - {"HEAD"}
    }
    assert {(method, path) for method, path, _ in operations(document)} == routed


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for found in walk(document):
        if "$ref" in found:
            target: Any = document
            for part in found["$ref"].removeprefix("#/").split("/"):
                target = target[part]


def test_no_two_operations_and_no_two_kinds_of_answer_have_one_name(app: App, document: dict[str, Any]) -> None:
    names = [described["operationId"] for _, _, described in operations(document)]
    assert len(set(names)) == len(names)
    said: list[Operation] = [route.ctx.operation for route in app.router.routes]
    kinds = {kind for one in said for kind in one.answers.values() if isinstance(kind, type)}
    assert len({kind.__name__ for kind in kinds}) == len(kinds)


def test_every_operation_reads_well(document: dict[str, Any]) -> None:
    for method, path, described in operations(document):
        summary = described["summary"]
        assert re.fullmatch(r"[A-Z`][^/…]{7,110}", summary), (method, path, summary)
        assert "Raises" not in described.get("description", ""), (method, path)


def test_examples_are_what_the_schemas_say(document: dict[str, Any]) -> None:
    tested = 0
    for _, path, described in operations(document):
        contents = [described.get("requestBody", {}), *described["responses"].values()]
        for content in contents:
            one = content.get("content", {}).get(JSON, {})
            if "example" in one:
                schema = {**one["schema"], "components": document["components"]}
                errors = [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(one["example"])]
                assert errors == [], path
                tested += 1
    assert tested > 8


def test_every_field_of_a_body_is_explained_and_no_word_is_left_over(document: dict[str, Any]) -> None:
    said = set()
    for _, path, described in operations(document):
        schema = described.get("requestBody", {}).get("content", {}).get(JSON, {})
        for found in walk(schema.get("schema", {})):
            for name, inner in found.get("properties", {}).items():
                assert "description" in inner, f"web/glossary.py does not say what {name} of {path} is"
                said.add(inner["description"])
    assert said == set(WORDS.values())


class Links(HTMLParser):
    """What a page loads and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.hrefs: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        found = dict(attrs)
        self.tags.add(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.hrefs += [found["href"] or ""] if "href" in found else []


def test_the_page_has_every_operation_and_loads_nothing(app: App, document: dict[str, Any]) -> None:
    page = Links()
    page.feed(app.ctx.reference.page)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed"}
    assert "url(" not in app.ctx.reference.page
    assert len(set(page.ids)) == len(page.ids)
    assert {href.removeprefix("#") for href in page.hrefs if href.startswith("#")} <= set(page.ids)
    assert {"/openapi.json", "/docs/errors"} == {href for href in page.hrefs if not href.startswith("#")}
    for _, path, _ in operations(document):
        assert f"<code>{path}</code>" in app.ctx.reference.page, path
