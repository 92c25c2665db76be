"""Which bytes of a PostgreSQL client commit something."""

import struct

import pytest

from tests.chaos.proxy import Parser

STARTUP = struct.pack(">ii", 8 + 10, 196608) + b"user\0x\0\0\0\0"[:10]
CLAIM = "WITH c AS (UPDATE shards SET a = 1) INSERT INTO claims (a) SELECT 1 RETURNING a"


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + struct.pack(">i", len(body) + 4) + body


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def parse(name: str, text: str) -> bytes:
    return message("P", name.encode() + b"\0" + text.encode() + b"\0\0\0")


def execute(name: str) -> bytes:
    bind = message("B", b"\0" + name.encode() + b"\0\0\0\0\0\0\0")
    return bind + message("E", b"\0\0\0\0\0") + message("S", b"")


def commits(*messages: bytes) -> list[str]:
    return Parser().feed(STARTUP + b"".join(messages))


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        ([query("BEGIN;"), query("COMMIT;")], ["commit"]),
        ([query("BEGIN ISOLATION LEVEL REPEATABLE READ;"), query("ROLLBACK;")], []),
        ([query("SELECT 1")], []),
        ([query("INSERT INTO outbox VALUES (1)")], ["write"]),
        (
            [query("BEGIN;"), query("UPDATE shards SET a = 1"), query("ROLLBACK TO SAVEPOINT x"), query("COMMIT;")],
            ["commit"],
        ),
        ([parse("s1", CLAIM), message("S", b""), execute("s1")], ["claim"]),
        ([parse("s1", CLAIM), execute("s1"), execute("s1")], ["claim", "claim"]),
        ([parse("s1", "SELECT updated FROM updates"), execute("s1")], []),
        ([query("BEGIN;"), parse("s1", CLAIM), execute("s1"), query("COMMIT;")], ["commit"]),
        ([parse("s1", "UPDATE t SET a = 1"), parse("s2", "SELECT 1"), execute("s2"), execute("s1")], ["write"]),
        ([message("d", b"COMMIT;" * 40_000), query("BEGIN;"), query("COMMIT;")], ["commit"]),
    ],
)
def test_commits_are_seen(said: list[bytes], labels: list[str]) -> None:
    assert commits(*said) == labels


def test_bytes_may_be_cut_anywhere() -> None:
    ssl_request = struct.pack(">ii", 8, 80877103)
    said = ssl_request + STARTUP + parse("s1", CLAIM) + execute("s1") + message("d", b"x" * 999) + query("COMMIT;")
    for size in (1, 2, 3, 7, 64, 1000):
        parser = Parser()
        found = [label for at in range(0, len(said), size) for label in parser.feed(said[at : at + size])]
        assert found == ["claim", "commit"], size
