"""Schemathesis holds a running installation to its document: no answer but those that it promises, whatever is asked."""

import asyncio
import json
import re
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailrail.accounts.model import Scope
from tests.support.api import Tenant
from tests.support.installation import Installation, installed
from tests.support.postgres import Database

SEED = 20261130
PHASES = "examples,coverage,fuzzing,stateful"
CASES_MIN = 2000
# Of each operation, and scenarios of several operations in a row.
EXAMPLES, SCENARIOS = 5, 60
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "unsupported_method",
)
# Of those who send the mails of the examples.
DOMAINS = ("acme.com", "domain.com", "yourdomain.com")
# Errors may have more than is promised: some codes add fields of their own.
OPEN_SCHEMAS = ("ErrorDetail", "FieldErrorAnswer")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run found."""

    passed: bool
    cases: int
    told: str


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path / "simulator") as running:
        yield running


@pytest.fixture
async def tenant(installation: Installation) -> Tenant:
    found = await installation.api.add_tenant()
    for domain in DOMAINS:
        await found.verify_domain(domain)
    return found


async def strict_document(tenant: Tenant) -> dict[str, Any]:
    """As it is served, but that answers have no field that it does not name."""
    document: dict[str, Any] = (await tenant.api.call("GET", "/openapi.json")).body
    for name, schema in document["components"]["schemas"].items():
        if "properties" in schema and name not in OPEN_SCHEMAS:
            schema["additionalProperties"] = False
    return document


async def schemathesis(folder: Path, tenant: Tenant, key: str, document: dict[str, Any], *options: str) -> Run:
    """One run with a fixed seed."""
    files = {name: folder / name for name in ("openapi.json", "schemathesis.toml", "report.json")}
    files["openapi.json"].write_text(json.dumps(document))
    files["schemathesis.toml"].write_text(
        f'[auth.openapi.apiKey]\nbearer = "{key}"\n[phases.stateful.generation]\nmax-examples = {SCENARIOS}\n'
    )
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("st")),
        *("--config-file", str(files["schemathesis.toml"]), "--no-color", "run", str(files["openapi.json"])),
        *("--url", tenant.api.base_url, "--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES)),
        *("--seed", str(SEED), "--suppress-health-check", "all", "--warnings", "off", "--no-shrink"),
        *("--report", "json", "--report-json-path", str(files["report.json"]), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    told, _ = await process.communicate()
    report = json.loads(files["report.json"].read_text())
    return Run(process.returncode == 0, report["test_cases"]["generated"], told.decode())


def answered(tenant: Tenant) -> dict[str, set[str]]:
    """Which statuses each operation has answered, by the API's own count."""
    seen = defaultdict(set)
    for metric in tenant.api.app.ctx.metrics.requests.collect():
        for sample in metric.samples:
            if sample.labels["method"] in ("GET", "POST", "PATCH", "DELETE"):
                seen[f"{sample.labels['method']} {sample.labels['route']}"].add(sample.labels["status"])
    return seen


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_the_installation_keeps_what_its_document_promises(tenant: Tenant, tmp_path: Path) -> None:
    key = await tenant.new_key((Scope.FULL, Scope.OPERATOR))
    run = await schemathesis(tmp_path, tenant, key, await strict_document(tenant), "--phases", PHASES)
    seen = answered(tenant)
    worked = [name for name, statuses in seen.items() if any(status.startswith("2") for status in statuses)]
    print(re.sub(r".*(?= ✅  Examples)", "", run.told, flags=re.DOTALL))
    print(f"{len(worked)} of {len(seen)} operations did something")
    assert run.passed, run.told
    assert run.cases >= CASES_MIN
    # Else it would have tested little but refusals.
    assert len(worked) > 0.75 * len(seen)
    assert (await tenant.api.call("GET", "/api/v1/account", key)).status == 200, "it revoked its own key on the way"


@pytest.mark.long
async def test_a_broken_promise_is_found(tenant: Tenant, tmp_path: Path) -> None:
    document = await strict_document(tenant)
    wallet = document["components"]["schemas"]["WalletAnswer"]
    del wallet["properties"]["frozen"]
    wallet["required"].remove("frozen")
    document["paths"]["/api/v1/contacts/{contact_id}"]["get"]["responses"].pop("404")
    only = ("--phases", "fuzzing", "--include-operation-id", "wallet_get", "--include-operation-id", "contacts_get")
    run = await schemathesis(tmp_path, tenant, tenant.key, document, *only)
    assert not run.passed
    assert "'frozen' was unexpected" in run.told
    assert "Undocumented status code" in run.told
