"""Forged tokens, hostile numbers of links and odd paths over a real connection: 404, and never a way off the list. What the
codec itself refuses is tried a million times in rust/src/token.rs.
"""

import asyncio
import base64
import random
from collections import Counter
from urllib.parse import urlsplit

from mailrail.db.pool import Pool
from tests.oracle.tokens import Tokens
from tests.support.api import Api, Tenant
from tests.support.postgres import SECRET
from tests.support.streams import make_stream

ROUNDS = 500
URL = "https://example.com/a?b=c"
TOKENS, FOREIGN = Tokens(SECRET.encode()), Tokens(b"the secret of an attacker, long enough")
LINKS = [
    *(
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e0",
        "0x1",
        "2",
        "99999999999",
        "4294967297",
        "\u0661",
        "\u00b9",
        "x",
        "%31%00",
        "1%20",
    ),
    *("//evil.org", "https://evil.org", "https:%2F%2Fevil.org", "%2F%2Fevil.org", "..%2F..%2F1", "1/", "1/x", "1%2F"),
    *(
        "1%0d%0aLocation:%20https://evil.org",
        "1%0aSet-Cookie:%20a=b",
        "1;url=//evil.org",
        "1@evil.org",
        "%5C%5Cevil.org",
    ),
]
# What a browser may be made to ask, with a token that is genuine.
PATHS = [
    "//evil.org/c/{token}/1",
    "/c//evil.org/{token}/1",
    "/c/{token}//evil.org",
    "/c/../c/{token}/x",
    "/o/{token}/1",
    "/c/{token}",
    "/C/{token}/1",
    "/c/{token}/1/../../../evil.org",
]
HEADERS = ["", "Host: evil.org", "X-Forwarded-Host: evil.org", "Forwarded: host=evil.org", "X-Original-URL: //evil.org"]


async def ask(port: int, paths: list[str], header: str = "") -> list[tuple[int, str | None]]:
    """(status, Location) of each, by one connection that sends the bytes as they are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    for path in paths:
        named = header if header.startswith("Host:") else f"Host: mail.example.com\r\n{header}".removesuffix("\r\n")
        writer.write(f"GET {path} HTTP/1.1\r\n{named}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        names = {name.lower(): value for name, value in fields.items()}
        await reader.readexactly(int(names.get("content-length", "0")))
        assert "set-cookie" not in names
        found.append((int(head.split()[1]), names.get("location")))
    writer.close()
    return found


def forged(chance: random.Random, stream_id: int, account_id: int) -> list[str]:
    """One of each way to come by a token that is none."""
    seq = chance.randint(1, 3)
    genuine = TOKENS.track_token(stream_id, seq)
    sealed = bytearray(base64.urlsafe_b64decode(genuine + "="))
    sealed[chance.randrange(len(sealed))] ^= 1 << chance.randrange(8)
    at = chance.randrange(len(genuine) - 1)
    return [
        base64.urlsafe_b64encode(sealed).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\x01" + chance.randbytes(28)).decode().rstrip("="),
        genuine[:at],
        genuine[:at] + ("A" if genuine[at] != "A" else "B") + genuine[at + 1 :],
        genuine + chance.choice("A=._-~"),
        FOREIGN.track_token(stream_id, seq),
        TOKENS.unsubscribe_token(account_id, 1, 0, stream_id, seq),
        TOKENS.confirm_token(account_id, 1, 1, 2**40),
        TOKENS.encode_id("eml", stream_id, seq),
        TOKENS.tag(stream_id, seq, 1),
    ]


async def test_thousands_of_forgeries_lead_nowhere(api: Api, tenant: Tenant, worker_pool: Pool) -> None:
    chance = random.Random(20261130)
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 3)
        await conn.execute(
            "INSERT INTO links (stream_id, n, account_id, url) VALUES ($1, 1, $2, $3)",
            stream.stream_id,
            tenant.account_id,
            URL,
        )
    port = urlsplit(api.base_url).port
    assert port is not None
    token = TOKENS.track_token(stream.stream_id, 1)
    assert await ask(port, [f"/c/{token}/1"]) == [(302, URL)]
    tokens = [text for _ in range(ROUNDS) for text in forged(chance, stream.stream_id, tenant.account_id)]
    doors = [
        f"/{door}/{text}{'/1' if door == 'c' else ''}" for door, text in zip("oc" * len(tokens), tokens, strict=False)
    ]
    assert Counter(await ask(port, doors)) == {(404, None): len(tokens)}
    # All but those for unsubscribing, which are genuine there, though the contact is nobody.
    others = [f"/u/{text}" for text in tokens if len(text) != len(TOKENS.unsubscribe_token(1, 1, 0, 1, 1))]
    assert Counter(await ask(port, others)) == {(404, None): len(others)}


async def test_a_genuine_token_leads_to_its_list_alone(api: Api, tenant: Tenant, worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 1)
        await conn.execute(
            "INSERT INTO links (stream_id, n, account_id, url) VALUES ($1, 1, $2, $3)",
            stream.stream_id,
            tenant.account_id,
            URL,
        )
    port = urlsplit(api.base_url).port
    assert port is not None
    token = TOKENS.track_token(stream.stream_id, 1)
    paths = [f"/c/{token}/{link}" for link in LINKS] + [path.format(token=token) for path in PATHS]
    for path in paths:
        for header in HEADERS:
            ((status, location),) = await ask(port, [path], header)
            assert location in (None, URL), (path, header)
            assert status in (302, 400, 404), (path, header, status)
            assert (status == 302) is (location == URL)
            assert status != 302 or path.endswith(("/01", "/1/")), path
