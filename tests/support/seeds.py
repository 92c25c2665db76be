"""The two API contracts word for word, their transcription, and whether an answer is the printed one.

A seed (`tests/contract/seeds/*.txt`) is cut into pieces by its transcription (`*.json`), each from where it `begins` to where
the next one does. A piece is a request with its answer, or text that tests hold.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SEEDS = Path(__file__).resolve().parent.parent / "contract" / "seeds"
NAMES = ("api-v1", "mail-v1")
HOST = "https://your-app.com"
KEY = "sk_live_your_key"

# What stands for a value that is another each time. `<list>` is for a list that is printed as [...].
PLACEHOLDERS = {
    **{f"<{kind}>": re.compile(rf"{kind}_[a-z2-7]{{26}}") for kind in ("con", "cmp", "dom", "lst", "whk", "hold")},
    # The recipient's number stands in an email's id, so its length differs.
    "<eml>": re.compile(r"eml_[a-z2-7]+"),
    "<time>": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    "<secret>": re.compile(r"whsec_[A-Za-z0-9+/]{43}="),
    "<text>": re.compile(r".+"),
}
LIST = "<list>"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece: its text as printed, and what is transcribed of it."""

    seed: str
    text: str
    said: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For the test's id: `POST /api/v1/emails`."""
        return f"{self.said['request']['method']} {self.said['request']['path'].partition('?')[0]}"


def text_of(seed: str) -> str:
    """The whole seed."""
    return (SEEDS / f"{seed}.txt").read_text(encoding="utf-8")


def pieces(seed: str) -> list[Piece]:
    """All of it, in order. The first piece begins where the seed does, or something was forgotten."""
    text, said = text_of(seed), json.loads((SEEDS / f"{seed}.json").read_text(encoding="utf-8"))
    begins, at = [], 0
    for one in said:
        at = text.index(one["begins"], at)
        begins.append(at)
    assert begins[0] == 0, f"{seed}.json leaves out the beginning"
    return [
        Piece(seed, text[start:end], one)
        for start, end, one in zip(begins, [*begins[1:], len(text)], said, strict=True)
    ]


def samples(*seeds: str) -> list[Piece]:
    """The pieces that are a request with its answer."""
    return [piece for seed in seeds or NAMES for piece in pieces(seed) if "request" in piece.said]


def printed_curl(piece: Piece) -> str:
    """The curl line of a piece, as printed."""
    return piece.text.partition("\nRequest\n")[2].partition("Response\n")[0]


def parsed_curl(line: str) -> dict[str, Any]:
    """What a curl line asks for, in the form of a transcribed request."""
    words = shlex.split(line.replace("\\\n", " "))
    assert words[0] == "curl"
    options = [(word, words[at + 1]) for at, word in enumerate(words) if word in ("-X", "-H", "-d")]
    values = {value for _, value in options}
    [url] = [word for word in words[1:] if not word.startswith("-") and word not in values]
    address = urlsplit(url)
    assert f"{address.scheme}://{address.netloc}" == HOST
    body = dict(options).get("-d")
    return {
        "method": dict(options).get("-X", "GET"),
        "path": address.path + (f"?{address.query}" if address.query else ""),
        "headers": dict(value.split(": ", 1) for option, value in options if option == "-H"),
        "body": None if body is None else json.loads(body),
    }


def printed_json(text: str) -> list[Any]:
    """Every JSON object in a text; `[...]` is read as the placeholder of a list."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = text.replace("[...]", json.dumps(LIST))
    while (at := text.find("{", at)) >= 0:
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def transcription_errors(said: Any, printed: Any, path: str = "") -> Iterator[str]:
    """Where a transcribed value is neither the printed one nor a placeholder for it."""
    if isinstance(said, dict) and isinstance(printed, dict) and set(said) == set(printed):
        for name, value in said.items():
            yield from transcription_errors(value, printed[name], f"{path}.{name}")
    elif isinstance(said, list) and isinstance(printed, list) and len(said) == len(printed):
        for n, value in enumerate(said):
            yield from transcription_errors(value, printed[n], f"{path}[{n}]")
    elif not (is_placeholder(said) and isinstance(printed, str)) and (said, type(said)) != (printed, type(printed)):
        yield f"{path}: {said!r} is printed as {printed!r}"


def is_placeholder(said: Any) -> bool:
    """Whether it stands for a text that is another each time: one of PLACEHOLDERS, or with … where it differs."""
    return isinstance(said, str) and (said in PLACEHOLDERS or "…" in said)


def pattern_of(placeholder: str) -> re.Pattern[str]:
    """What a text must be like to be meant by it."""
    return PLACEHOLDERS.get(placeholder) or re.compile(".+".join(map(re.escape, placeholder.split("…"))))


def differences(got: Any, said: Any, path: str = "answer") -> Iterator[str]:
    """Where an answer is not as transcribed. More fields are fine, and more items in a list of objects, in this order."""
    if said == LIST:
        if not (isinstance(got, list) and got):
            yield f"{path} must be a list that is not empty, not {got!r}"
    elif isinstance(said, dict):
        if not isinstance(got, dict):
            yield f"{path} must be an object, not {got!r}"
            return
        for name, value in said.items():
            if name in got:
                yield from differences(got[name], value, f"{path}.{name}")
            else:
                yield f"{path} lacks {name}"
    elif isinstance(said, list) and said and isinstance(said[0], dict) and isinstance(got, list):
        yield from _missing_items(got, said, path)
    elif is_placeholder(said):
        if not (isinstance(got, str) and pattern_of(said).fullmatch(got)):
            yield f"{path} must be like {said}, not {got!r}"
    elif (got, type(got)) != (said, type(said)):
        yield f"{path} must be {said!r}, not {got!r}"


def _missing_items(got: list[Any], said: list[Any], path: str) -> Iterator[str]:
    rest = iter(got)
    for n, item in enumerate(said):
        if not any(not list(differences(one, item)) for one in rest):
            yield f"{path} has no item like {path}[{n}] = {item!r}: {got[:3]!r}"
