"""Fixtures that every test may use. A database belongs to a test module, and so do the loop and what lives
in it: pools, and the API.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from mailrail.db.pool import Pool, open_pool
from mailrail.up.postgres import Cluster
from tests.support import kafka, postgres
from tests.support.full import FULL, LEFT_OUT
from tests.support.kafka import Broker
from tests.support.postgres import Database

# MAILRAIL_TEST_PROFILE=slow searches longer; the default keeps `make test` short.
hypothesis.settings.register_profile("fast", max_examples=50, deadline=None)
hypothesis.settings.register_profile("slow", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("MAILRAIL_TEST_PROFILE", "fast"))

# No test looks for the keys of a machine in a cloud.
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long is for the whole run."""
    for item in items:
        if item.get_closest_marker("long") and not FULL:
            item.add_marker(pytest.mark.skip(LEFT_OUT))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The PostgreSQL server of this test run."""
    with postgres.cluster_with_template(tmp_path_factory.mktemp("cluster", numbered=True)) as running:
        yield running


@pytest.fixture(scope="module")
def database(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database of the test module's own."""
    name = postgres.database_name(request.module.__name__)
    yield postgres.clone(cluster, name)
    postgres.drop(cluster, name)


@pytest.fixture(scope="module")
async def api_pool(database: Database) -> AsyncIterator[Pool]:
    """Connections as mailrail_api, under row level security."""
    pool = await open_pool(database.api_url, application_name="tests api")
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
async def worker_pool(database: Database) -> AsyncIterator[Pool]:
    """Connections as mailrail_worker, which sees all tenants."""
    pool = await open_pool(database.worker_url, application_name="tests worker", hot=True)
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
async def superuser_pool(database: Database) -> AsyncIterator[Pool]:
    """Connections as the superuser, to look behind the curtain."""
    pool = await open_pool(database.superuser_url, application_name="tests superuser")
    yield pool
    await pool.close()


@pytest.fixture(scope="session")
def session_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The Kafka broker of this test run. Only a machine without Java may go without; continuous integration may not."""
    reason = kafka.missing()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with kafka.running(tmp_path_factory.mktemp("kafka", numbered=True)) as running:
        yield running


@pytest.fixture
def broker(session_broker: Broker) -> Broker:
    """The broker of this test run, up again if the test before took it down."""
    session_broker.start()
    return session_broker


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data directory for an installation of the test's own."""
    return tmp_path / "data"
