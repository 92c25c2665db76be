"""Which variables a campaign prints as they are, so that whoever has none reads a gap."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator

_OPENING = re.compile(r"\{[{%]")
_NAMES = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_TEXTS = re.compile(r"'[^'\\]*(?:\\.[^'\\]*)*'|\"[^\"\\]*(?:\\.[^\"\\]*)*\"", re.DOTALL)
# In a tag that has one of these there is something else to print.
_SPARE = re.compile(r"\|\s*(default|d)\b|\b(or|if)\b")
_CONDITION = re.compile(r"[-+]?\s*(if|elif)\b")
_LIKE = 0.75


def printed_bare(parts: Iterable[str], names: Collection[str]) -> list[str]:
    """Those of `names` that a part prints without a default and does not ask for in an `if`, sorted."""
    found: set[str] = set()
    for part in parts:
        printed: set[str] = set()
        asked: set[str] = set()
        for opening, tag in _tags(part):
            inner = _TEXTS.sub("''", tag)
            if opening == "{{" and _SPARE.search(inner) is None:
                printed |= set(_NAMES.findall(inner))
            elif opening == "{%" and _CONDITION.match(inner.strip()):
                asked |= set(_NAMES.findall(inner))
        found |= printed - asked
    return sorted(found & set(names))


def nearest(name: str, known: Collection[str]) -> str | None:
    """The name that was perhaps meant."""
    folded = {_folded(one): one for one in sorted(known)}
    close = difflib.get_close_matches(_folded(name), list(folded), 1, _LIKE)
    return folded[close[0]] if close else None


def _folded(name: str) -> str:
    """`first_name`, `FirstName` and `firstName` are one."""
    return name.replace("_", "").lower()


def _tags(source: str) -> Iterator[tuple[str, str]]:
    """How each tag begins, and what stands in it."""
    at = 0
    while (opening := _OPENING.search(source, at)) is not None:
        end = source.find("}}" if opening[0] == "{{" else "%}", opening.end())
        if end < 0:
            return
        yield opening[0], source[opening.end() : end]
        at = end + 2
