"""The demo's readers: distinct people with the names that break careless templates, two in a hundred with an address that bounces."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mailrail.db.pool import Connection, fetch_one

READER_HOST = "readers.example.org"
BOUNCE_HOST = "simulator.amazonses.com"
BOUNCES_ONE_IN = 50
COPY_ROWS = 10_000
TAGS = ["demo", "newsletter"]

FIRST_NAMES = (
    "Ada", "Zoë", "José", "Łukasz", "Søren", "Nguyễn", "Ольга", "李", "Μαρία", "محمد", "שרה", "Anne-Marie", "D’Arcy", "Chloé", "Jürgen",
    "Siân", "Bjørk", "Yūki", "प्रिया", "Ming", 'Robert "Bob"', "O'Neil", "Max & Moritz", "<Tim>", "{{Tess}}", "Ëlla", "Ivan\\Vanya", "Kim 🌱",
    "Renée", "Ngozi", "Þór", "Çelik", "Fatima", "Jean-Luc", "Dita", "Ignác", "Ruth", "Sunniva", "Tomás", "Wren",
)  # fmt: skip
LAST_NAMES = (
    "Lovelace", "O'Brien", "Müller", "Škvorecký", "van der Berg", "García Márquez", "Nowak", "小林", "Папандопуло", "Al-Farsi", "Ben-David",
    "d'Artagnan", "Smith & Sons", "Fjeld", "Åkesson", "Íñiguez", "Öztürk", "Dvořák", "Kowalczyk", "Ó Súilleabháin", "MacDonald", "Nguyễn",
    "de la Cruz", "Sánchez", "Bălan", "Kovačević", "Rossi", "Lefèvre", "Hernández", "Sigurðardóttir", "Ye", "Xu", "Zhang", "Okafor",
    "Haddad", "Meyer", "Silva", "Tanaka", "Petrov", "Ümit",
)  # fmt: skip
COMPANIES = (
    "Acme Corp", "Größe & Söhne", "Quote \"Unquote\" Ltd", "100% Juice", "O'Reilly's", "<Angle> Studio", "Curly {Braces} Inc", "株式会社 北",
    "Ёлка", "Back\\slash Labs", "Äpfel AG", "Semi;Colon", "Ampersand & Co", "The Blank Page",
)  # fmt: skip
CITIES = (
    "Reykjavík", "São Paulo", "Zürich", "Łódź", "東京", "Αθήνα", "القاهرة", "Coeur d’Alene", "Nuku'alofa", "Malmö", "Kraków", "Lagos", "Pune",
)  # fmt: skip
PLANS = ("starter", "professional", "enterprise")


@dataclass(frozen=True, slots=True)
class Stock:
    """Contacts of one host: how many were ever made, and how many of them a campaign would reach."""

    ever: int
    reachable: int


async def fill_list(connection: Connection, account_id: int, list_id: int, recipients: int) -> int:
    """Make the list hold exactly so many reachable contacts, two percent of them bouncing; returns how many had to be made.

    Addresses that bounced last time are suppressed now, as they should be, so every run needs new ones of that kind.
    """
    wanted = {BOUNCE_HOST: recipients // BOUNCES_ONE_IN, READER_HOST: recipients - recipients // BOUNCES_ONE_IN}
    async with connection.transaction():
        stocks = {host: await read_stock(connection, account_id, host) for host in wanted}
        missing = {host: max(0, wanted[host] - stocks[host].reachable) for host in wanted}
        await copy_contacts(connection, account_id, mixed(stocks, missing))
        await connection.execute(
            "INSERT INTO contact_fields (account_id, name) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
            account_id,
            list(custom_fields(0)),
        )
        await connection.execute("DELETE FROM list_members WHERE list_id = $1", list_id)
        for host, count in wanted.items():
            await add_members(connection, account_id, list_id, host, count)
    return sum(missing.values())


async def read_stock(connection: Connection, account_id: int, host: str) -> Stock:
    """Count what earlier runs left."""
    row = await fetch_one(
        connection,
        f"""
        SELECT count(*) AS ever, count(*) FILTER (WHERE {REACHABLE}) AS reachable
        FROM contacts AS c WHERE c.account_id = $1 AND c.email_folded LIKE '%@' || $2
        """,
        account_id,
        host,
    )
    return Stock(row["ever"], row["reachable"])


def mixed(stocks: Mapping[str, Stock], missing: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Host and number of the contacts to make, those that bounce spread evenly among the others; numbers go on where they stopped."""
    total = sum(missing.values())
    made = dict.fromkeys(missing, 0)
    for n in range(1, total + 1):
        host = BOUNCE_HOST if made[BOUNCE_HOST] < n * missing[BOUNCE_HOST] // total else READER_HOST
        yield host, stocks[host].ever + made[host]
        made[host] += 1


async def add_members(connection: Connection, account_id: int, list_id: int, host: str, count: int) -> None:
    """The oldest reachable contacts of this host into the list."""
    await connection.execute(
        f"""
        INSERT INTO list_members (list_id, contact_id, account_id)
        SELECT $2, c.id, $1 FROM contacts AS c
        WHERE c.account_id = $1 AND c.email_folded LIKE '%@' || $3 AND {REACHABLE}
        ORDER BY c.id LIMIT $4
        """,
        account_id,
        list_id,
        host,
        count,
    )


# Whom the audience of a campaign would take.
REACHABLE = (
    "c.status = 'subscribed' AND NOT EXISTS"
    " (SELECT FROM suppressions AS s WHERE s.account_id = c.account_id AND s.email_folded = c.email_folded)"
)


async def copy_contacts(connection: Connection, account_id: int, people: Iterator[tuple[str, int]]) -> None:
    """COPY in portions, so that memory does not grow with the number."""
    while portion := list(itertools.islice(people, COPY_ROWS)):
        await connection.copy_records_to_table(
            "contacts",
            columns=["account_id", "email", "name", "first_name", "last_name", "tags", "custom_fields"],
            records=[contact(account_id, host, n) for host, n in portion],
        )


def contact(account_id: int, host: str, n: int) -> tuple[Any, ...]:
    """The n-th contact of a host as a row."""
    first, last = names(n)
    local = f"bounce+{n}" if host == BOUNCE_HOST else f"reader.{n}"
    return (account_id, f"{local}@{host}", f"{first} {last}", first, last, TAGS, custom_fields(n))


def names(n: int) -> tuple[str, str]:
    """The n-th pair of names; when all pairs are used up, a numeral keeps people apart as it does kings."""
    pair, generation = n % (len(FIRST_NAMES) * len(LAST_NAMES)), n // (len(FIRST_NAMES) * len(LAST_NAMES))
    first, last = FIRST_NAMES[pair % len(FIRST_NAMES)], LAST_NAMES[pair // len(FIRST_NAMES)]
    return first, f"{last} {roman(generation + 1)}" if generation else last


def custom_fields(n: int) -> dict[str, Any]:
    """What the newsletter merges in. The company's number makes nearly every mail a different one."""
    return {
        "company": f"{COMPANIES[n % len(COMPANIES)]} {n}",
        "city": CITIES[n % len(CITIES)],
        "plan": PLANS[n % len(PLANS)],
        "points": n * 37 % 10_000,
    }


def roman(number: int) -> str:
    """1 → I, 4 → IV, 1990 → MCMXC; beyond 3999 the M's pile up."""
    steps = (
        (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"),
        (5, "V"), (4, "IV"), (1, "I"),
    )  # fmt: skip
    text = ""
    for value, letters in steps:
        text += letters * (number // value)
        number %= value
    return text
