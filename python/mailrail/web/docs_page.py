"""/docs: the OpenAPI document as one page of HTML that loads nothing and runs nothing."""

from collections.abc import Mapping
from html import escape
from typing import Any


def docs_page(document: Mapping[str, Any]) -> str:
    """The page."""
    lines = "".join(
        f"<li><code>{method.upper()} {escape(path)}</code> {escape(described['summary'])} ({described['x-price']})</li>"
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    )
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>mailrail</title><ul>{lines}</ul></html>'
