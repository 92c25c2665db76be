"""A million contacts by CSV over HTTP, beside PostgreSQL's own COPY of the same people into the same table.

Method: an embedded PostgreSQL of its own (fsync and synchronous_commit on), a fresh database for each run, all indexes,
constraints and foreign keys in place. COPY gets ready rows as CSV, by `copy_to_table` as the worker's role, in the order of
the file. The import is `mailrail api` and `mailrail worker --roles import`, two processes, and a client that streams the
file; its time runs from the first byte sent to the commit of the last row. One row in a hundred is bad. A run counts only
if every good row is a contact and every bad one stands in the error file, by its number. COPY and import take turns.
Memory is the peak resident set as the kernel keeps it.
"""

import argparse
import asyncio
import contextlib
import csv
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.machine import describe_machine, median
from mailrail.accounts import service as accounts
from mailrail.accounts.model import Plan
from mailrail.config import Settings, variable, with_role_urls
from mailrail.db.migrate import migrate
from mailrail.db.pool import connect
from mailrail.up import postgres
from mailrail.up.postgres import Cluster
from mailrail.wallet import service as wallet
from tests.support.processes import peak_memory_bytes

SECRET = "a secret of the bench, long enough to be one"
TEMPLATE = "bench_template"
PORT = 18026
SHARE_MIN = 0.6
PEAK_MIB_MAX = 150
BAD_ONE_IN = 100
TAGS = ("newsletter", "import")
TIMEOUT_S = 600.0
TOWNS = ("Bern", "Zürich", "Reykjavík", "São Paulo", "Łódź", "Lagos", "Pune", "Malmö")
PATH = "/v1/mail/contacts/import"


@dataclass(frozen=True, slots=True)
class Imported:
    """One import's figures."""

    seconds: float
    upload_seconds: float
    api_peak_mib: float
    worker_peak_mib: float


def main() -> int:
    """Status 1 when a figure misses its mark."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--runs", type=int, default=3)
    chosen = options.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="mailrail-bench-") as folder:
        files = write_files(Path(folder), chosen.rows)
        with postgres.running(Path(folder) / "data") as cluster:
            asyncio.run(make_template(cluster))
            return run(cluster, Path(folder), files, chosen.rows, chosen.runs)


def run(cluster: Cluster, folder: Path, files: "Files", rows: int, runs: int) -> int:
    """Takes turns, prints and judges."""
    copied: list[float] = []
    imported: list[Imported] = []
    for number in range(runs):
        copied.append(asyncio.run(copy(cluster, f"copy_{number}", files)))
        imported.append(measure_import(cluster, folder, f"import_{number}", files))
        one = imported[-1]
        print(
            f"COPY {len(files.bad) * (BAD_ONE_IN - 1) / copied[-1]:9,.0f} rows/s; import {rows / one.seconds:9,.0f} rows/s"
            f" ({one.seconds:.1f} s, of which {one.upload_seconds:.1f} s until answered), peak of api {one.api_peak_mib:.0f}"
            f" MiB, of worker {one.worker_peak_mib:.0f} MiB",
            flush=True,
        )
    good = rows - len(files.bad)
    copy_rate = median([good / seconds for seconds in copied])
    import_rate = median([rows / one.seconds for one in imported])
    share = median([rows / one.seconds / (good / seconds) for one, seconds in zip(imported, copied, strict=True)])
    peak = max(max(one.api_peak_mib, one.worker_peak_mib) for one in imported)
    print(f"median: COPY {copy_rate:,.0f} rows/s, import {import_rate:,.0f} rows/s")
    print(
        f"share of COPY in the same turn, median {share:.2f} (at least {SHARE_MIN}); peak {peak:.0f} MiB (at most {PEAK_MIB_MAX})"
    )
    return 0 if share >= SHARE_MIN and peak <= PEAK_MIB_MAX else 1


@dataclass(frozen=True, slots=True)
class Files:
    """The upload, the same people as ready rows for COPY, and the numbers of the bad rows."""

    upload: Path
    ready: Path
    bad: frozenset[int]


def write_files(folder: Path, rows: int) -> Files:
    """Addresses come in no order, as in life."""
    upload, ready, bad = folder / "people.csv", folder / "ready.csv", set()
    tags = "{" + ",".join(TAGS) + "}"
    with upload.open("w", newline="") as raw, ready.open("w", newline="") as rows_file:
        out, copy_out = csv.writer(raw), csv.writer(rows_file)
        out.writerow(("Email", "First Name", "Last Name", "Company", "Town"))
        for number in range(rows):
            person = number * 2_654_435_761 % 2**32
            first, last, town = f"First{person % 997}", f"Last{person % 7919}", TOWNS[person % len(TOWNS)]
            email, company = (
                f"{first}.{last}.{person:08x}@example{person % 500}.com".lower(),
                f"Company {person % 30_000}",
            )
            if number % BAD_ONE_IN == BAD_ONE_IN - 1:
                bad.add(number + 2)
                out.writerow((email.replace("@", " at "), first, last, company, town))
                continue
            out.writerow((email, first, last, company, town))
            fields = json.dumps({"Company": company, "Town": town})
            copy_out.writerow((1, email, f"{first} {last}", first, last, tags, fields))
    return Files(upload, ready, frozenset(bad))


async def make_template(cluster: Cluster) -> None:
    """A migrated database with one account, to be cloned for each run."""
    await postgres.ensure_database(cluster, TEMPLATE)
    await migrate(cluster.url(TEMPLATE), SECRET, report=lambda line: None)
    conn = await connect(cluster.url(TEMPLATE), application_name="bench")
    async with conn.transaction():
        await conn.execute("SET LOCAL search_path = mailrail")
        account = await accounts.create(conn, "Bench", plan=Plan.UNLIMITED)
        await wallet.open_wallet(conn, account.id)
    await conn.close()


async def clone(cluster: Cluster, name: str) -> Settings:
    """A fresh database, and what is dirty written out before."""
    conn = await connect(cluster.url("postgres"), application_name="bench")
    await conn.execute(f'CREATE DATABASE "{name}" TEMPLATE {TEMPLATE}')
    await conn.execute("CHECKPOINT")
    await conn.close()
    settings = Settings(
        database_url=cluster.url(name), secret_key=SECRET, ses_endpoint="https://127.0.0.1:1", port=PORT
    )
    return with_role_urls(settings)


async def copy(cluster: Cluster, name: str, files: Files) -> float:
    """Seconds that COPY takes."""
    settings = await clone(cluster, name)
    conn = await connect(settings.worker_database_url, application_name="bench")
    columns = ("account_id", "email", "name", "first_name", "last_name", "tags", "custom_fields")
    begun = time.monotonic()
    await conn.copy_to_table("contacts", source=files.ready, columns=columns, format="csv")
    seconds = time.monotonic() - begun
    await conn.close()
    await drop(cluster, name)
    return seconds


async def drop(cluster: Cluster, name: str) -> None:
    """Frees what a run took."""
    conn = await connect(cluster.url("postgres"), application_name="bench")
    await conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await conn.close()


def measure_import(cluster: Cluster, folder: Path, name: str, files: Files) -> Imported:
    """Imports the file by the processes of production, and checks what came of it."""
    settings = asyncio.run(clone(cluster, name))
    key = asyncio.run(make_key(settings))
    with (
        process(settings, folder / "api.log", "api") as api,
        process(settings, folder / "worker.log", "worker", "--roles", "import") as worker,
    ):
        begun = time.monotonic()
        sent = request(key, "POST", f"{PATH}?tags={','.join(TAGS)}", files.upload)
        answered = time.monotonic()
        import_id = json.loads(sent)["id"]
        while (told := json.loads(request(key, "GET", f"{PATH}/{import_id}")))["status"] == "processing":
            if time.monotonic() - begun > TIMEOUT_S:
                raise SystemExit(f"the import did not end: {told}")
            time.sleep(0.1)
        seconds = time.monotonic() - begun
        errors = request(key, "GET", f"{PATH}/{import_id}/errors")
        figures = Imported(
            seconds, answered - begun, peak_memory_bytes(api.pid) / 2**20, peak_memory_bytes(worker.pid) / 2**20
        )
    asyncio.run(check(settings, files, told, errors))
    asyncio.run(drop(cluster, name))
    return figures


async def check(settings: Settings, files: Files, told: dict[str, object], errors: bytes) -> None:
    """Nothing lost, nothing doubled, every bad row told."""
    conn = await connect(settings.database_url, application_name="bench")
    good = sum(1 for _ in files.ready.open("rb"))
    stored = await conn.fetchrow("SELECT count(*), count(DISTINCT email_folded) FROM mailrail.contacts")
    left = await conn.fetchval("SELECT count(*) FROM mailrail.import_pieces")
    await conn.close()
    bad = {int(row["row"]) for row in csv.DictReader(io.StringIO(errors.decode()))}
    if (
        tuple(stored or ()) != (good, good)
        or bad != files.bad
        or left
        or (told["created"], told["failed"]) != (good, len(bad))
    ):
        raise SystemExit(f"the import is wrong: {told}, stored {stored}, {len(bad)} errors, {left} pieces left")


async def make_key(settings: Settings) -> str:
    """A key of the template's account."""
    conn = await connect(settings.worker_database_url, application_name="bench")
    account_id = await conn.fetchval("SELECT id FROM accounts")
    _, key = await accounts.create_key(conn, account_id, "bench")
    await conn.close()
    return key


def request(key: str, method: str, path: str, upload: Path | None = None) -> bytes:
    """One request; an upload is streamed from its file."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key}"}
    with contextlib.ExitStack() as opened:
        body = None if upload is None else opened.enter_context(upload.open("rb"))
        if upload is not None:
            headers |= {"Content-Type": "text/csv", "Content-Length": str(upload.stat().st_size)}
            connection.blocksize = 64 * 1024
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = response.read()
    connection.close()
    if response.status >= 300:
        raise SystemExit(f"{method} {path}: {response.status} {answer[:500]!r}")
    return answer


@contextlib.contextmanager
def process(settings: Settings, log_file: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """One of our processes, ready."""
    names = ("database_url", "secret_key", "ses_endpoint", "port")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILRAIL_")}
    environment = clean | {variable(name): str(getattr(settings, name)) for name in names}
    with log_file.open("wb") as log:
        command = [sys.executable, "-m", "mailrail", *arguments]
        with subprocess.Popen(command, stdout=log, stderr=log, env=environment) as child:
            try:
                deadline = time.monotonic() + 30
                while b"ready" not in log_file.read_bytes() and b"listening" not in log_file.read_bytes():
                    if child.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"{arguments[0]} did not start:\n{log_file.read_text()[-2000:]}")
                    time.sleep(0.05)
                yield child
            finally:
                child.terminate()


if __name__ == "__main__":
    sys.exit(main())
