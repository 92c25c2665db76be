"""A PostgreSQL of its own for the test run, with a migrated template that each test module clones."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailrail.config import Settings, with_role_urls
from mailrail.db.migrate import migrate
from mailrail.db.pool import connect
from mailrail.up import postgres

SECRET = "a secret of the tests, long enough to be one"
TEMPLATE = "mailrail_template"


@dataclass(frozen=True, slots=True)
class Database:
    """One database with all migrations, as the three users of it see it."""

    superuser_url: str
    api_url: str
    worker_url: str
    secret_key: str = SECRET

    def settings(self, **changes: object) -> Settings:
        """Settings of a process on this database; the endpoint is a stand-in that nobody has to reach."""
        values = {
            "database_url": self.superuser_url,
            "secret_key": self.secret_key,
            "ses_endpoint": "https://127.0.0.1:1",
        }
        return with_role_urls(Settings(**{**values, **changes}))  # type: ignore[arg-type]


@contextmanager
def cluster_with_template(home: Path) -> Iterator[postgres.Cluster]:
    """The server of the test run; the template is migrated once."""
    with postgres.running(home) as cluster:
        asyncio.run(make_template(cluster))
        yield cluster


async def make_template(cluster: postgres.Cluster) -> None:
    """A database with all migrations run, by the code that production uses."""
    await postgres.ensure_database(cluster, TEMPLATE)
    await migrate(cluster.url(TEMPLATE), SECRET, report=lambda line: None)


def clone(cluster: postgres.Cluster, name: str) -> Database:
    """A fresh copy of the template; a leftover of the same name goes first."""
    asyncio.run(clone_template(cluster, name))
    return database(cluster, name)


async def clone_template(cluster: postgres.Cluster, name: str) -> None:
    """CREATE DATABASE … TEMPLATE, some 50 ms."""
    connection = await connect(cluster.url("postgres"), application_name="tests")
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE {TEMPLATE}')
    finally:
        await connection.close()


def drop(cluster: postgres.Cluster, name: str) -> None:
    """Remove a clone, sessions included."""

    async def run() -> None:
        connection = await connect(cluster.url("postgres"), application_name="tests")
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()

    asyncio.run(run())


def database(cluster: postgres.Cluster, name: str) -> Database:
    """The URLs of a database of the cluster."""
    url = cluster.url(name)
    settings = with_role_urls(Settings(database_url=url, secret_key=SECRET))
    return Database(url, settings.api_database_url, settings.worker_database_url)


def database_name(module: str) -> str:
    """A database name for a test module."""
    return "t_" + re.sub(r"\W", "_", module)[-60:]
