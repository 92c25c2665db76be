"""The house rules that a machine can check. Each exception stands here with its reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "python" / "mailrail"

# Lowest first: a room imports itself and those before it.
ROOMS = (
    "accounts",
    "wallet",
    "domains",
    "suppressions",
    "reputation",
    "contacts",
    "imports",
    "templates",
    "emails",
    "campaigns",
    "rehearsals",
    "events",
    "tracking",
    "preferences",
    "confirmations",
    "webhooks",
    "privacy",
    "mail_v1",
)
# What stands beside the rooms and knows none of them. `web` is not here: it reads an account from a key.
PLUMBING = (
    "bus",
    "db",
    "ses",
    "addresses.py",
    "cancellation.py",
    "config.py",
    "errors.py",
    "findings.py",
    "ids.py",
    "outgoing.py",
    "sealing.py",
)

# File → why its statements do not stand in a room's store.py.
SQL_ELSEWHERE = {
    "bus/outbox.py": "the outbox is no room's table",
    "bus/parking.py": "parked messages are no room's either",
    "bus/postgres.py": "NOTIFY is the transport of this bus",
    "campaigns/audience.py": "the third part of the store of campaigns: whom an audience reaches",
    "campaigns/canary_store.py": "the fifth part of the store of campaigns: their mode, and the canaries that decide it",
    "campaigns/links.py": "the fourth part of the store of campaigns: who followed which link",
    "campaigns/recipients.py": "the second part of the store of campaigns: who got it, who did not and why",
    "contacts/consents.py": "the third part of the store of contacts: what people said of getting mail",
    "contacts/members.py": "the second part of the store of contacts: who is on which list",
    "contacts/merge.py": "the fourth part of the store of contacts: many at once",
    "db/migrate.py": "makes the tables and the roles",
    "db/partitions.py": "calls the functions that make and drop partitions",
    "db/pool.py": "names the tenant of a part of a transaction",
    "emails/fold.py": "the second part of the store of emails: from facts to states",
    "emails/desk_store.py": "the fifth part of the store of emails: what a desk of the mailroom writes",
    "emails/keys.py": "the transaction that takes a mail keeps its Idempotency-Key",
    "emails/mails.py": "the fourth part of the store of emails: transactional mail, read again",
    "emails/traces.py": "the sixth part of the store of emails: where one person is in the mail",
    "emails/reconcile.py": "the third part of the store of emails: what silence proves",
    "events/soft_bounces.py": "the second part of the store of events: addresses that mail comes back from again and again",
    "suppressions/ses_list.py": "the second part of the store of suppressions: the copy of SES's own list",
    "up/demo.py": "reads the figures of the summary where they are exact",
    "up/demo_contacts.py": "loads its contacts in bulk, as an import will",
    "up/postgres.py": "makes the embedded database",
    "webhooks/deliveries.py": "the second half of the store of webhooks: messages and their deliveries",
}
# File → what it needs of the core.
CORE_IN = {
    "__main__.py": "the simulator",
    "addresses.py": "a fast yes",
    "app.py": "ids and tokens",
    "aws/probe.py": "the tags of its mails",
    "aws/probe_mail.py": "the type of the codec",
    "campaigns/canary.py": "the plan of a canary",
    "campaigns/handlers.py": "the plan of a stream",
    "campaigns/rounds.py": "rounds: render, sign, submit",
    "campaigns/content.py": "freezing a template and rendering it",
    "commands.py": "ids",
    "confirmations/handlers.py": "tokens",
    "emails/handlers.py": "canaries",
    "emails/accepted_log.py": "the type of a round's report",
    "emails/mailroom.py": "sending transactional mail",
    "emails/service.py": "preparing transactional mail",
    "emails/submission.py": "encoding mails for a round",
    "events/handlers.py": "parsing notifications",
    "events/service.py": "checking signatures of SNS",
    "ids.py": "the type of its codec",
    "ops/pipeline.py": "the error of a canary that cannot be sent",
    "ses/sender.py": "the sender of a process",
    "imports/handlers.py": "reading pieces of an upload",
    "imports/service.py": "cutting uploads into pieces",
    "templates/service.py": "checking and rendering templates",
    "tracking/routes.py": "the type of its codec",
    "up/demo.py": "ids",
    "web/context.py": "the type of the app's codec",
    "worker.py": "the sender that all shards share",
}

STATEMENT = re.compile(
    r"\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\w+(\s+\w+)?\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\b|COPY\s|CREATE\s|ALTER\s"
    r"|DROP\s|TRUNCATE\s|GRANT\s)"
)
# Put together from parts, or this file would break its own rules.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(wo" + r"rk|ro" + r"ot)(/|\b)")
TEXT_SUFFIXES = (
    ".py",
    ".pyi",
    ".rs",
    ".toml",
    ".sql",
    ".pml",
    ".md",
    ".html",
    ".txt",
    ".mjs",
    ".js",
    ".json",
    ".yml",
    ".yaml",
    "",
)


def sources() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    """As the lists above write it."""
    return file.relative_to(PACKAGE).as_posix()


def imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names of all imports, those inside functions included; `from a import b` may name a module, so a.b too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_or_holds(imported: str, module: str) -> bool:
    """Whether the import is of the module or of something in it."""
    return imported == module or imported.startswith(f"{module}.")


def climbs(room: str, tree: ast.Module) -> list[str]:
    """Rooms that this module of `room` imports although they are higher than it; of the plumbing all rooms are."""
    higher = ROOMS[ROOMS.index(room) + 1 :] if room in ROOMS else ROOMS
    return sorted({other for other in higher for name in imports(tree) if is_or_holds(name, f"mailrail.{other}")})


def statements(tree: ast.Module) -> list[str]:
    """First words of the strings that are SQL, docstrings aside."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value.strip()[:40]
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in prose
        and STATEMENT.match(node.value)
    ]


def test_rooms_import_only_lower_rooms() -> None:
    found = {}
    for file in sources():
        first = name_of(file).partition("/")[0]
        if first in ROOMS or first in PLUMBING:
            found[name_of(file)] = climbs(first, ast.parse(file.read_text()))
    assert {name: rooms for name, rooms in found.items() if rooms} == {}


@pytest.mark.parametrize(
    ("room", "line", "caught"),
    [
        ("wallet", "from mailrail.campaigns import service", ["campaigns"]),
        ("wallet", "from mailrail import events", ["events"]),
        ("wallet", "def f():\n    import mailrail.emails.store", ["emails"]),
        ("db", "from mailrail.accounts.model import Plan", ["accounts"]),
        ("events", "from mailrail.emails import fold", []),
        ("events", "from mailrail.events_of_others import fold", []),
    ],
)
def test_an_import_upwards_is_caught(room: str, line: str, caught: list[str]) -> None:
    assert climbs(room, ast.parse(line)) == caught


def test_the_architecture_names_the_rooms_in_their_order() -> None:
    page = (REPOSITORY / "ARCHITECTURE.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == ROOMS


def test_every_room_says_in_its_docstring_what_it_is() -> None:
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert set(ROOMS) <= folders
    for room in ROOMS:
        body = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
        assert len(body) == 1, f"{room}/__init__.py holds more than a docstring"


def test_sql_stands_in_stores() -> None:
    found = {
        name_of(file)
        for file in sources()
        if file.name != "store.py" and statements(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert found == set(SQL_ELSEWHERE)


@pytest.mark.parametrize(
    ("line", "is_sql"),
    [
        ('run("SELECT 1")', True),
        ('run(f"""\\n  UPDATE {table} SET a = 1""")', False),  # the name of a table is never put together
        ('run("""\\n  UPDATE shards s SET a = 1""")', True),
        ('run("DELETE FROM permits")', True),
        ('run("WITH gone AS (SELECT 1) SELECT 2")', True),
        ('run("Select a list")', False),
        ('"""SELECT is what this module is about."""', False),
    ],
)
def test_a_statement_is_known_when_seen(line: str, is_sql: bool) -> None:
    assert bool(statements(ast.parse(line))) is is_sql


def test_sanic_ends_at_the_routes() -> None:
    found = {
        name_of(file)
        for file in sources()
        if any(is_or_holds(name, "sanic") for name in imports(ast.parse(file.read_text())))
    }
    below = {
        name for name in found if not name.startswith(("web/", "mail_v1/")) and name.rpartition("/")[2] != "routes.py"
    }
    assert below == {"app.py"}


def test_the_core_is_imported_in_named_places() -> None:
    found = {
        name_of(file)
        for file in sources()
        if any(is_or_holds(name, "mailrail._core") for name in imports(ast.parse(file.read_text())))
    }
    assert found == set(CORE_IN)


def test_every_module_has_a_docstring() -> None:
    assert [name_of(file) for file in sources() if not ast.get_docstring(ast.parse(file.read_text()))] == []


def deaf_loops(tree: ast.Module) -> list[int]:
    """Lines of endless loops that go on after errors of the database without asking whether they were cancelled."""
    return [
        loop.lineno
        for loop in ast.walk(tree)
        if isinstance(loop, ast.While)
        and "DATABASE_ERRORS" in (names := {node.id for node in ast.walk(loop) if isinstance(node, ast.Name)})
        and isinstance(loop.test, ast.Constant)
        and "is_cancelled" not in names
    ]


def test_endless_loops_hear_that_they_are_cancelled() -> None:
    found = {name_of(file): deaf_loops(ast.parse(file.read_text())) for file in sources()}
    # Its tasks are waited for, never cancelled.
    del found["emails/mailroom.py"]
    assert {name: lines for name, lines in found.items() if lines} == {}


def own_files() -> Iterator[Path]:
    """Text that we wrote: no build results, no packages of others."""
    for top in ("python", "rust", "tests", "benches", ".ci", ".cargo"):
        for file in sorted((REPOSITORY / top).rglob("*")):
            foreign = {"node_modules", "target", "__pycache__"} & set(file.parts)
            if file.is_file() and not foreign and file.suffix in TEXT_SUFFIXES and file.name != "package-lock.json":
                yield file
    yield from (file for file in sorted(REPOSITORY.glob("*")) if file.is_file() and file.suffix in TEXT_SUFFIXES)


@pytest.mark.parametrize("unwanted", [UNFINISHED, MACHINE_PATH], ids=["unfinished", "machine_path"])
def test_no_file_has_notes_to_self_or_paths_of_one_machine(unwanted: re.Pattern[str]) -> None:
    found = [
        f"{file.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]}"
        for file in own_files()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if unwanted.search(line)
    ]
    assert found == []
