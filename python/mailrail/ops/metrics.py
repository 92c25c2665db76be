"""/metrics in Prometheus's text form: figures of the whole installation from PostgreSQL, and counters of this process.

Labels are names of ours (routes, states, outcomes, AWS account and region), never a tenant or an address.
"""

import asyncio
import hmac
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mailrail import config
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.emails.model import Outcome
from mailrail.errors import MailrailError
from mailrail.ops import store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Scrapes that come more often see the same figures.
FIGURES_MAX_AGE_S = 5.0
READ_TIMEOUT_S = 5.0
LAG_BUCKETS_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0)


class MetricsRefused(MailrailError):
    """/metrics asks for the token in MAILRAIL_METRICS_TOKEN, and without one shows itself only on an installation that only this machine uses."""

    code = "metrics_refused"


@dataclass(frozen=True, slots=True)
class Described:
    """How a figure is published: its help text, its label if it has one, and whether it only ever grows."""

    help: str
    label: str | None = None
    grows: bool = False


FIGURES: Mapping[str, Described] = {
    "outbox_messages": Described("Messages that wait for the relay."),
    "outbox_oldest_seconds": Described("Age of the oldest message that waits for the relay."),
    "notifications_waiting": Described("Notifications of SES that wait for the applier."),
    "notifications_lag_seconds": Described("Age of the oldest notification that waits for the applier."),
    "shards_waiting": Described("Shards that could be sent now and that no worker has."),
    "shards_leased": Described("Shards that a worker has."),
    "folds_due": Described("Shards whose states are to be computed anew."),
    "recipients_unknown": Described("Recipients of whom nobody knows whether SES accepted their mail."),
    "recipients_unresolved": Described("Recipients given up as unknown."),
    "unknown_oldest_seconds": Described("Age of the oldest unknown outcome."),
    "duplicates_detected": Described("Recipients of whom SES accepted more than one attempt, in the records kept."),
    "messages_parked": Described("Bus messages that could not be read."),
    "notifications_parked": Described("Notifications that could not be read."),
    "notifications_parked_by_reason": Described("Notifications that could not be read, by reason.", "reason"),
    "events_silent_seconds": Described("Since when events of accepted mail are missing; 0 while they come."),
    "events_heard_age_seconds": Described("Time since an event of SES was applied."),
    "event_queue_waiting": Described("Messages that wait in the SQS queue of events.", "queue"),
    "event_queue_in_flight": Described("Messages of the SQS queue of events that somebody has received.", "queue"),
    "event_queue_dead": Described("Messages in the dead-letter queue of the SQS queue of events.", "queue"),
    "holds_overdue": Described("Open holds that are older than 72 hours."),
    "holds_overdue_micros": Described("Micro-dollars in open holds that are older than 72 hours."),
    "installation_held": Described("1 while nothing is sent until somebody releases the installation."),
    "ledger_violations": Described("Broken rules that the last audit of the ledger found."),
    "ledger_audit_age_seconds": Described("Time since the last audit of the ledger."),
    "wallets_frozen": Described("Tenants who start nothing new because their books do not balance."),
    "webhooks_due": Described("Webhook deliveries that are due and wait for a dispatcher."),
    "webhooks_oldest_seconds": Described("Age of the oldest webhook delivery that is due."),
    "webhook_endpoints_failing": Described("Webhook endpoints that are on and whose last attempts all failed."),
    "webhook_endpoints_disabled": Described(
        "Webhook endpoints that were switched off because they were gone or failed for days."
    ),
    "campaigns": Described("Campaigns that are not over, by status.", "status"),
    "send_rate_max": Described("Recipients a second that SES grants.", "limit"),
    "send_rate_factor": Described("Part of that rate in use after throttles.", "limit"),
    "send_throttles": Described("Answers by which SES throttled.", "limit", grows=True),
    "send_granted": Described("Recipients let through to SES.", "limit", grows=True),
    "send_quota_max": Described("Recipients in 24 hours that SES grants.", "limit"),
    "send_quota_used": Described("Recipients of the last 24 hours.", "limit"),
}


class Figures(Collector):
    """The installation's figures as they were read last; nothing while they cannot be read."""

    def __init__(self) -> None:
        self._rows: list[store.Figure] = []
        self._read_at = 0.0
        self._lock = asyncio.Lock()

    async def refresh(self, pool: Pool) -> None:
        """Reads them anew unless they are fresh. Scrapes that come at the same time share one reading."""
        async with self._lock:
            if self._rows and time.monotonic() - self._read_at < FIGURES_MAX_AGE_S:
                return
            try:
                async with asyncio.timeout(READ_TIMEOUT_S), pool.acquire() as conn:
                    self._rows = await store.read_figures(conn)
            except DATABASE_ERRORS:
                self._rows = []
            self._read_at = time.monotonic()

    def collect(self) -> Iterable[Metric]:
        """What the last reading said, and whether there was one."""
        yield GaugeMetricFamily(
            "mailrail_database_up", "1 if the figures could be read from PostgreSQL.", value=bool(self._rows)
        )
        for name, described in FIGURES.items():
            rows = [row for row in self._rows if row.name == name]
            if rows:
                yield family(name, described, rows)


def family(name: str, described: Described, rows: Iterable[store.Figure]) -> Metric:
    """One metric with its samples."""
    labels = [described.label] if described.label else []
    kind = CounterMetricFamily if described.grows else GaugeMetricFamily
    built = kind(f"mailrail_{name}", described.help, labels=labels)
    for row in rows:
        built.add_metric([row.label or ""] if labels else [], row.value)
    return built


class Metrics:
    """The registry of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.figures = Figures()
        self.registry.register(self.figures)
        self.requests = Counter(
            "mailrail_http_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        # Finding a counter by its labels costs more than counting.
        self._by_request: dict[tuple[str, str, int], Counter] = {}
        self.emails = Counter(
            "mailrail_emails", "Outcomes of attempts, by this process.", ["outcome"], registry=self.registry
        )

        self.webhooks = Counter(
            "mailrail_webhooks",
            "Attempts to deliver a webhook, by this process: delivered, refused by an answer, or silent.",
            ["outcome"],
            registry=self.registry,
        )
        self.event_lag = Histogram(
            "mailrail_event_lag_seconds",
            "From SES's time stamp of an event to its appliance, by this process.",
            buckets=LAG_BUCKETS_S,
            registry=self.registry,
        )

    def count_lag(self, seconds: float, events: int) -> None:
        """So many events were under way for so long."""
        for _ in range(events):
            self.event_lag.observe(max(0.0, seconds))

    def count_request(self, method: str, route: str, status: int) -> None:
        """One answer."""
        key = (method, route, status)
        counter = self._by_request.get(key)
        if counter is None:
            counter = self._by_request[key] = self.requests.labels(*key)
        counter.inc()

    def count_webhooks(self, outcome: str) -> None:
        """One attempt."""
        self.webhooks.labels(outcome).inc()

    def count_emails(self, counts: Mapping[int, int]) -> None:
        """A round's outcomes, by name."""
        for outcome, number in counts.items():
            self.emails.labels(Outcome(outcome).name.lower()).inc(number)

    async def text(self, pool: Pool) -> bytes:
        """The whole page."""
        await self.figures.refresh(pool)
        return generate_latest(self.registry)


def check_token(settings: Settings, authorization: str | None) -> None:
    """With a token set, who asks must bring it. Raises MetricsRefused."""
    if settings.metrics_token:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            token.strip().encode(), settings.metrics_token.encode()
        ):
            raise MetricsRefused


def check_public(settings: Settings, authorization: str | None) -> None:
    """For the port that the whole world may reach. Without a token nothing is shown there, unless the world is this machine:
    a peer's address proves nothing behind a proxy. Raises MetricsRefused.
    """
    if not settings.metrics_token and not config.is_loopback(urlsplit(settings.public_url).hostname or ""):
        raise MetricsRefused
    check_token(settings, authorization)
