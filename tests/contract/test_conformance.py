"""Schemathesis holds a running installation to its document: no answer but those that the document promises, whatever is asked."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mailrail.accounts.model import Scope
from tests.support.api import Tenant
from tests.support.installation import Installation, installed
from tests.support.postgres import Database

SEED = 20261130
CASES_MIN = 2000
# Of each operation and phase.
EXAMPLES = 8
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
)
# Of those who send the mails of the examples.
DOMAINS = ("acme.com", "domain.com", "yourdomain.com")


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path / "simulator", {}) as running:
        yield running


@pytest.fixture
async def tenant(installation: Installation) -> Tenant:
    found = await installation.api.add_tenant()
    for domain in DOMAINS:
        await found.verify_domain(domain)
    return found


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """The document, but that answers have no field that it does not name. Errors may: some codes add their own."""
    for name, schema in document["components"]["schemas"].items():
        if schema.get("type") == "object" and "properties" in schema and name != "ErrorDetail" and name != "FieldErrorAnswer":
            schema["additionalProperties"] = False
    return document


@pytest.mark.timeout(600)
async def test_the_installation_keeps_what_its_document_promises(tenant: Tenant, tmp_path: Path) -> None:
    served = await tenant.api.call("GET", "/openapi.json")
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(strict(served.body)))
    key = await tenant.new_key((Scope.FULL, Scope.OPERATOR))
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'[auth.openapi.apiKey]\nbearer = "{key}"\n')
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "st"),
        *("--config-file", str(config), "--no-color", "run", str(document), "--url", tenant.api.base_url),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing,stateful"),
        *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--suppress-health-check", "all"),
        *("--continue-on-failure", "--warnings", "off", "--no-shrink"),
        *("--report", "json", "--report-json-path", str(tmp_path / "report.json")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    told, _ = await process.communicate()
    print(told.decode())
    (Path("/tmp/st.out")).write_bytes(told)
    (Path("/tmp/st.json")).write_bytes((tmp_path / "report.json").read_bytes())
    assert process.returncode == 0, told.decode()[-8000:]
