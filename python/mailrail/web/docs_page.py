"""/docs: the OpenAPI document as one page of HTML that loads nothing and runs nothing."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from mailrail.web.openapi import FREE, JSON

Json = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: light-dark(#1a4fb4, #8fb4ff); }
html { scroll-padding-top: 1rem; }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; }
a { color: var(--accent); }
nav, main { padding: 1rem 1.5rem 3rem; box-sizing: border-box; }
nav ul { list-style: none; margin: 0 0 1rem; padding: 0; font-size: .875rem; }
nav li { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
nav h2 { font-size: 1rem; margin: 1rem 0 .25rem; }
main { max-width: 62rem; min-width: 0; }
main > section > h2 { margin-top: 3rem; text-transform: capitalize; border-bottom: 1px solid var(--line); }
article { margin: 2rem 0 3rem; }
h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
h4 { margin: 1rem 0 .25rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .875rem; }
pre { padding: .75rem 1rem; overflow-x: auto; background: var(--soft); border-radius: .375rem; }
.method { display: inline-block; min-width: 3.5rem; font-weight: 700; color: var(--accent); }
.price { float: right; margin-left: 1rem; padding: 0 .6rem; border: 1px solid var(--line); border-radius: 1rem; font-weight: 400; }
.paid { background: #e8a40033; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { padding: .3rem .75rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; }
summary { cursor: pointer; padding: .25rem 0; }
:focus-visible { outline: 3px solid #e8a400; outline-offset: 2px; }
@media (max-width: 60rem) {
  nav { max-height: 40vh; overflow-y: auto; border-bottom: 1px solid var(--line); }
}
@media (min-width: 60rem) {
  body { display: grid; grid-template-columns: 18rem 1fr; }
  nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; border-right: 1px solid var(--line); }
}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation, with all paths under which it is the same."""

    method: str
    described: Json
    paths: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Where the page has it."""
        return str(self.described["operationId"])


def docs_page(document: Json) -> str:
    """The page."""
    entries = merged(document)
    nouns = [tag["name"] for tag in document["tags"]]
    of_noun = {noun: [entry for entry in entries if entry.described["tags"][0] == noun] for noun in nouns}
    title = f"{document['info']['title']} {document['info']['version']}"
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: API</title><style>{_STYLE}</style></head>\n<body>"
        f"{_navigation(of_noun)}<main>{_introduction(document, title)}"
        + "".join(
            f'<section aria-labelledby="{noun}"><h2 id="{noun}">{noun}</h2>'
            + "".join(_article(entry, document) for entry in of_noun[noun])
            + "</section>\n"
            for noun in nouns
        )
        + "</main></body>\n</html>\n"
    )


def merged(document: Json) -> list[Entry]:
    """What is the same in both dialects stands on the page once."""
    entries: list[Entry] = []
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            for entry in entries:
                if entry.method == method and _twins(entry.paths[0], path, entry.described, described):
                    entry.paths.append(path)
                    break
            else:
                entries.append(Entry(method, described, [path]))
    return entries


def _twins(one_path: str, other_path: str, one: Json, other: Json) -> bool:
    """Whether two operations differ by their dialect alone."""
    same_place = one_path.split("/")[3:] == other_path.split("/")[3:] and one_path.count("/") > 2
    return same_place and {**one, "operationId": ""} == {**other, "operationId": ""}


# —— parts of the page ——————————————————————————————————————————————————————————————————————————————————————————————————


def _navigation(of_noun: Mapping[str, list[Entry]]) -> str:
    groups = "".join(
        f'<h2><a href="#{noun}">{noun.capitalize()}</a></h2><ul>'
        + "".join(
            f'<li><a href="#{one.anchor}" title="{_places(one)}">{escape(one.described["summary"])}</a></li>'
            for one in entries
        )
        + "</ul>"
        for noun, entries in of_noun.items()
    )
    return f'<nav aria-label="Operations">{groups}</nav>'


def _places(entry: Entry) -> str:
    """What tells it from an operation that the other dialect describes in the same words."""
    return escape(f"{entry.method.upper()} {', '.join(entry.paths)}")


def _introduction(document: Json, title: str) -> str:
    return (
        f"<h1>{escape(title)}</h1><p>{_prose(document['info']['description'])}</p>"
        '<p><a href="/openapi.json">OpenAPI document</a> · <a href="/docs/errors">All errors</a></p>'
    )


def _article(entry: Entry, document: Json) -> str:
    described = entry.described
    places = "<br>".join(
        f'<span class="method">{entry.method.upper()}</span> <code>{escape(path)}</code>' for path in entry.paths
    )
    price = described["x-price"]
    scopes = [scope for need in described.get("security", ()) for scope in need["apiKey"]]
    needs = f"<p>Scope of the key: <code>{escape(scopes[0])}</code></p>" if scopes else "<p>Needs no key.</p>"
    return (
        f'<article id="{entry.anchor}"><span class="price{"" if price == FREE else " paid"}">{escape(price)}</span>'
        f"<h3>{places}</h3><p><strong>{_prose(described['summary'])}.</strong> {_prose(described.get('description', ''))}</p>"
        f"{needs}{_parameters(described, document)}{_body(described, document)}{_curl(entry, document)}"
        f"{_answers(described, document)}</article>\n"
    )


def _parameters(described: Json, document: Json) -> str:
    resolved = [_resolve(one, document) for one in described["parameters"]]
    rows = [(one["name"], one["in"], _type(one["schema"]), one.get("description", "")) for one in resolved]
    return _table("Parameters", ("Name", "In", "Type", "Meaning"), rows)


def _body(described: Json, document: Json) -> str:
    content = described.get("requestBody", {}).get("content", {})
    rows = list(_fields(content.get(JSON, {}).get("schema", {}), document, required="required"))
    others = ", ".join(kind for kind in content if kind != JSON)
    return _table("Body", ("Field", "Type", "Meaning"), rows) + (
        f"<p>Also read: <code>{escape(others)}</code></p>" if others else ""
    )


def _answers(described: Json, document: Json) -> str:
    told = []
    for status, given in described["responses"].items():
        response = _resolve(given, document)
        content = response.get("content", {})
        schema = content.get(JSON, {}).get("schema", {})
        is_error = schema.get("$ref", "").endswith("/ErrorAnswer")
        fields = (
            ""
            if is_error
            else _table("", ("Field", "Type", "Meaning"), list(_fields(schema, document, optional="not always")))
        )
        example = content.get(JSON, {}).get("example")
        shown = "" if example is None else f"<pre>{escape(json.dumps(example, indent=2, ensure_ascii=False))}</pre>"
        kinds = ", ".join(kind for kind in content if kind != JSON)
        told.append(
            f"<details{'' if is_error or not shown else ' open'}><summary><strong>{status}</strong> "
            f"{_prose(response['description'])} <code>{escape(kinds)}</code></summary>{fields}{shown}</details>"
        )
    return f"<h4>Answers</h4>{''.join(told)}"


def _curl(entry: Entry, document: Json) -> str:
    path = entry.paths[0].replace("{", "").replace("}", "")
    url = f"{document['servers'][0]['url']}{path}"
    lines = [f'curl "{url}"' if entry.method == "get" else f'curl -X {entry.method.upper()} "{url}"']
    if "security" in entry.described:
        lines.append('-H "Authorization: Bearer sk_live_your_key"')
    content = entry.described.get("requestBody", {}).get("content", {}).get(JSON)
    if content is not None and (body := content.get("example") or example_of(content["schema"])):
        text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
        lines += ['-H "Content-Type: application/json"', f"-d '{text}'"]
    command = " \\\n  ".join(lines)
    return f"<pre>{escape(command)}</pre>"


def _table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(
        f"<tr><td><code>{escape(row[0])}</code></td>"
        + "".join(f"<td>{_prose(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    heading = f"<h4>{title}</h4>" if title else ""
    return f'{heading}<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _prose(text: str) -> str:
    """Text in which backticks mark code."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


# —— schemas in words ———————————————————————————————————————————————————————————————————————————————————————————————————


def _fields(
    schema: Json, document: Json, prefix: str = "", *, required: str = "", optional: str = ""
) -> Iterator[tuple[str, str, str]]:
    """The fields of an object and of those within, as `content.html` and `results[].id`."""
    schema = _resolve(schema, document)
    for name, one in schema.get("properties", {}).items():
        needed = required if name in schema.get("required", ()) else optional
        yield f"{prefix}{name}", _type(one), ", ".join(filter(None, (needed, one.get("description", ""))))
        for inner, mark in _inner(one, document):
            yield from _fields(inner, document, f"{prefix}{name}{mark}.", required=required, optional=optional)


def _inner(schema: Json, document: Json) -> Iterator[tuple[Json, str]]:
    """Objects that a field holds, with what its name gets behind it."""
    for one in (schema, *schema.get("anyOf", ())):
        if "properties" in _resolve(one, document):
            yield one, ""
        elif one.get("type") == "array":
            yield from ((inner, f"[]{mark}") for inner, mark in _inner(one.get("items", {}), document))


def _type(schema: Json) -> str:
    """A schema in a few words."""
    if not schema:
        return "anything"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{word}`" for word in schema["enum"])
    kind = str(schema.get("type", "object"))
    if kind == "array":
        most = f" (at most {schema['maxItems']})" if "maxItems" in schema else ""
        return f"list of {_type(schema.get('items', {}))}{most}"
    limits = [
        {"date-time": "a time", "email": "an address"}.get(schema.get("format", ""), ""),
        f"at most {schema['maxLength']} characters" if "maxLength" in schema else "",
        f"from {schema['minimum']}" if "minimum" in schema else "",
        f"to {schema['maximum']}" if "maximum" in schema else "",
        f"default {json.dumps(schema['default'])}" if "default" in schema else "",
    ]
    return ", ".join(filter(None, (kind, *limits)))


def example_of(schema: Json) -> Any:
    """A body with what is required, and nothing else."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema and "properties" not in schema:
        return example_of(schema["anyOf"][0])
    match schema.get("type"):
        case "object":
            alternatives = [one["anyOf"] for one in (schema, *schema.get("allOf", ())) if "anyOf" in one]
            names = [*schema.get("required", ()), *(one[0]["required"][0] for one in alternatives)]
            return {name: example_of(schema["properties"][name]) for name in names}
        case "array":
            return [example_of(schema.get("items", {}))]
        case "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    known = {"email": "user@example.com", "hostname": "news.example.com", "date-time": "2027-04-08T10:15:00Z"}
    return known.get(schema.get("format", ""), "…")


def _resolve(schema: Json, document: Json) -> Json:
    """What a `$ref` points to."""
    found: Json = schema
    while "$ref" in found:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return found
