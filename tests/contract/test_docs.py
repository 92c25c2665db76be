"""docs/api.md does what it says: its commands and programs run as printed against a live installation.

What may differ from machine to machine is replaced in them: the address and the key. A JSON block is the last answer of the
commands above it, with … for what is another each time; more fields are fine.
"""

import asyncio
import hmac
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from mailrail.accounts.model import REQUESTS_PER_MINUTE, Plan
from mailrail.config import Settings
from mailrail.emails.mail import BATCH_MAX
from mailrail.up.demo import DOMAIN
from mailrail.web.errors import STATUS
from mailrail.web.pages import LIMIT_MAX
from mailrail.web.values import shown_price
from mailrail.webhooks.model import PREVIOUS_VALID
from tests.support.api import Tenant
from tests.support.installation import Installation, installed
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.seeds import differences, printed_json
from tests.support.tools import require
from tests.support.waiting import until

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
ADDRESS, KEY = f"http://127.0.0.1:{Settings().port}", "sk_live_…"
SHELL, DATA = "bash", "json"
END_OF_BLOCK = "—— end of block ——"
START_S = 20.0
# The first build of a Go program compiles what it needs of the standard library.
BUILD_S = 240.0


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code: where it stands, what it is in, and what it says."""

    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """For the test's id."""
        return f"{self.language}-line-{self.line}"


def blocks() -> list[Block]:
    """All of the page, in order."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [Block(PAGE.count("\n", 0, one.start()) + 1, one[1], one[2]) for one in found]


def programs(*, listening: bool) -> list[Block]:
    """The programs that listen, which find out from `PORT` where, or those that end by themselves."""
    return [
        block
        for block in blocks()
        if block.language not in (SHELL, DATA) and bool(re.search(r"\bPORT\b", block.text)) is listening
    ]


@pytest.fixture(scope="module")
async def installation(database: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture
async def tenant(installation: Installation) -> Tenant:
    """An account as `make run` leaves it."""
    found = await installation.api.add_tenant()
    await found.verify_domain(DOMAIN)
    return found


async def run(*command: str, timeout_s: float = 60.0, folder: Path, **variables: str) -> str:
    """What a command prints; it has to end well."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, errors.decode() + out.decode()
    return out.decode()


async def ready(block: Block, folder: Path) -> list[str]:
    """The command that runs a program of the page."""
    match block.language:
        case "python":
            (folder / "program.py").write_text(block.text)
            return [sys.executable, "program.py"]
        case "js":
            require("node")
            (folder / "program.mjs").write_text(block.text)
            return ["node", "program.mjs"]
        case "go":
            require("go")
            (folder / "program.go").write_text(block.text)
            await run(
                "go", "build", "program.go", folder=folder, timeout_s=BUILD_S, GOTOOLCHAIN="local", CGO_ENABLED="0"
            )
            return ["./program"]
        case other:
            pytest.fail(f"nobody runs {other!r} of line {block.line}")


# —— commands ——————————————————————————————————————————————————————————————————————————————————————————————————————————


async def test_the_commands_are_answered_as_printed(tenant: Tenant, tmp_path: Path) -> None:
    require("curl")
    commands = [block for block in blocks() if block.language == SHELL]
    script = "set -euo pipefail\n" + "".join(f"{block.text}\nprintf '%s' '{END_OF_BLOCK}'\n" for block in commands)
    assert ADDRESS in script
    assert KEY in script
    script = script.replace(ADDRESS, tenant.api.base_url).replace(KEY, tenant.key)
    told = (await run("bash", "-c", script, folder=tmp_path)).split(END_OF_BLOCK)[: len(commands)]
    following = dict(pairwise([*blocks(), Block(0, "", "")]))
    for block, output in zip(commands, told, strict=True):
        answers = printed_json(output)
        said = following[block]
        if said.language == DATA:
            assert list(differences(answers[-1], json.loads(said.text))) == [], f"line {said.line}"
            answers = answers[:-1]
        assert not [answer for answer in answers if "error" in answer], f"line {block.line}"


async def test_every_answer_of_the_page_follows_its_commands() -> None:
    languages = [block.language for block in blocks()]
    assert languages[0] == SHELL
    for before, language in pairwise(languages):
        assert language != DATA or before == SHELL


# —— programs ——————————————————————————————————————————————————————————————————————————————————————————————————————————


@pytest.mark.parametrize("block", programs(listening=False), ids=lambda block: block.name)
async def test_a_program_sends_a_mail(tenant: Tenant, tmp_path: Path, block: Block) -> None:
    command = await ready(block, tmp_path)
    told = await run(*command, folder=tmp_path, MAILRAIL_URL=tenant.api.base_url, MAILRAIL_KEY=tenant.key)
    # The comment behind the line that prints says what it prints.
    [printed] = re.findall(r"(?:#|//) (.+)$", block.text, re.MULTILINE)
    assert told == f"{printed}\n"
    assert (await tenant.get("/api/v1/emails")).body["total"] == 1


@pytest.mark.parametrize("block", programs(listening=True), ids=lambda block: block.name)
async def test_a_webhook_program_believes_what_is_signed_alone(tenant: Tenant, tmp_path: Path, block: Block) -> None:
    made = await tenant.post("/api/v1/webhooks", {"url": "https://your-app.com/webhook", "events": ["email.delivered"]})
    secret: str = made.body["secret"]
    body = '{"type":"email.delivered","data":{"to":"jörg@example.com"}}'.encode()
    signature = hmac.new(secret.encode(), body, "sha256").hexdigest()
    port = free_port()
    command = await ready(block, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,
        env=os.environ | {"PORT": str(port), "WEBHOOK_SECRET": secret},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until_listening(port)
        for sent, header, status in (
            (body, signature, 200),
            (body.replace(b"delivered", b"bounced"), signature, 401),
            (body, signature[:-1] + ("0" if signature[-1] != "0" else "1"), 401),
            (body, signature[:10], 401),
            (body, "ü", 401),
            (body, None, 401),
        ):
            headers = {} if header is None else {"x-webhook-signature": header}
            async with tenant.api.session.post(
                f"http://127.0.0.1:{port}/webhook", data=sent, headers=headers
            ) as answer:
                assert answer.status == status, (sent, header)
    finally:
        process.kill()
        await process.wait()


async def until_listening(port: int) -> None:
    """Somebody answers there."""

    async def is_open() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await until(is_open, "the program's start")


# —— words —————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def test_every_address_in_the_text_is_there(installation: Installation) -> None:
    doors = {
        (method, "/" + re.sub(r"<\w+(:\w+)?>", ":id", route.path))
        for route in installation.api.app.router.routes
        for method in route.methods
    }
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (\S+?)(?:\?[^`]*)?`", PAGE)
    assert len(named) > 10
    for method, path in named:
        if path.startswith("…"):
            assert any(verb == method and door.endswith(path[1:]) for verb, door in doors), (method, path)
        else:
            assert (method, path) in doors, (method, path)


async def test_every_status_of_an_error_is_explained() -> None:
    explained = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}
    assert explained == set(STATUS.values())


@pytest.mark.parametrize(
    "sentence",
    [
        f"up to {BATCH_MAX} mails",
        f"`limit` (at most {LIMIT_MAX})",
        f"signs beside it\nfor {PREVIOUS_VALID // timedelta(hours=1)} hours",
        f"A mail costs {shown_price(Settings().price_micros)} once it is delivered",
        f"{Settings().import_max_bytes // 1_000_000} MB by default",
        ", ".join(f"{REQUESTS_PER_MINUTE[plan]} ({plan})" for plan in (Plan.STARTER, Plan.PROFESSIONAL))
        + f" or {REQUESTS_PER_MINUTE[Plan.ENTERPRISE]} ({Plan.ENTERPRISE}) requests a minute",
        f"export MAILRAIL_URL={ADDRESS} ",
    ],
)
async def test_what_the_text_says_of_limits_is_so(sentence: str) -> None:
    assert sentence in PAGE
