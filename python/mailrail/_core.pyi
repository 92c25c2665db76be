"""The Rust core: rendering, signing and sending, a batch at a time.

Bytes go in and bytes come out. "JSON" means UTF-8 JSON bytes; "rows" means PostgreSQL's binary
COPY format with header and trailer, exactly as `COPY … TO/FROM … (FORMAT binary)` speaks it.
The GIL is released during all work. Every class is immutable and may be shared by threads.

A recipient's failure is data (an outcome code); an exception concerns a whole call.
"""

import asyncio
from typing import final

__all__ = [
    "Codec",
    "ConfigError",
    "CoreError",
    "Envelope",
    "ImportCutter",
    "ImportPiece",
    "ImportPlan",
    "ImportRows",
    "Lease",
    "MailError",
    "ParsedEvents",
    "Plan",
    "Report",
    "Sender",
    "SnsVerifier",
    "TemplateError",
    "check_address",
    "encode_mail_rows",
    "encode_recipient_row",
    "freeze",
    "inspect_template",
    "parse_events",
    "prepare_mail",
    "run_simulator",
]

class CoreError(Exception):
    """Something is wrong with a whole call, e.g. rows or JSON that are not as described here."""

class TemplateError(CoreError):
    """A template does not compile or breaks a limit.

    `part` is "subject", "preheader", "html" or "text" (or "" where no single part is to blame),
    `line` counts from 1 in that part where it is known, `reason` is one sentence for the author.
    """

    part: str
    line: int | None
    reason: str

class MailError(CoreError):
    """A mail that cannot be sent as it is; `errors` has everything that is wrong with it, in the order of its fields.

    Each is {"param": path of the field, as "attachments[0].filename", "code": word, "message": one sentence}.
    """

    errors: list[dict[str, str]]

class ConfigError(CoreError):
    """An option is missing or cannot be used, or a sender has no credentials yet."""

@final
class Codec:
    """Public ids and link tokens under the keys of one installation's secret.

    All of them are deterministic: the same numbers give the same text. Ids only hide (they have
    a check of 56 to 64 bits); tokens cannot be forged (128 bits).
    """

    def __new__(cls, secret: bytes) -> Codec:
        """Derives all keys from `secret`."""

    def encode_id(self, prefix: str, id: int, seq: int = 0, attempt: int = 0) -> str:  # noqa: A002
        """`<prefix>_` and 26 characters for a bigint id; `eml` ids have a `seq`.

        OverflowError for an `id` beyond 64 bits, a `seq` beyond 32 or an `attempt` beyond 16.
        """

    def encode_ids(self, prefix: str, ids: list[int]) -> list[str]:
        """`encode_id` of each id, in order."""

    def decode_id(self, prefix: str, text: str) -> tuple[int, int, int] | None:
        """(id, seq, attempt), or None for anything that `encode_id` with this prefix did not make."""

    def tag(self, stream_id: int, seq: int, attempt: int) -> str:
        """What a mail carries as the SES tag `mr`, by which its events are known."""

    def read_track_token(self, token: str) -> tuple[int, int] | None:
        """(stream_id, seq) of an open or click token, or None if it is not genuine."""

    def read_unsubscribe_token(self, token: str) -> tuple[int, int, int, int, int] | None:
        """(account_id, contact_id, list_id, stream_id, seq), or None if it is not genuine.

        A list_id of 0 means that the mail did not go to a list.
        """

    def track_token(self, stream_id: int, seq: int) -> str:
        """The 39 characters in `{base}/o/…` and `{base}/c/…/{n}`."""

    def unsubscribe_token(self, account_id: int, contact_id: int, list_id: int, stream_id: int, seq: int) -> str:
        """The 71 characters in `{base}/u/…`."""

    def confirm_token(self, account_id: int, contact_id: int, list_id: int, expires_s: int) -> str:
        """The 66 characters in `{base}/confirm/…`; `expires_s` counts seconds since 1970."""

    def read_confirm_token(self, token: str) -> tuple[int, int, int, int] | None:
        """(account_id, contact_id, list_id, expires_s), or None if it is not genuine. The caller looks at the clock."""

def freeze(content: bytes) -> bytes:
    """Checks a campaign's content and prepares it for sending, once per campaign.

    In, JSON: {"subject", "html", "text" | null, "preheader" | null, "base_url",
    "track_opens": bool, "track_clicks": bool, "postal_address" | null}.
    Out, JSON: {"subject", "html", "text", "links": [URL, …], "variables": [name, …], "untracked":
    {"html", "text"}}; the last is what recipients get who are not tracked, absent where it is the same. The number of a
    tracked link in `{base}/c/{token}/{n}` is its place in `links`, counted from 1.
    `variables` are the custom fields that the content uses, sorted.

    Raises TemplateError, or CoreError for other JSON.
    """

def inspect_template(template: bytes) -> bytes:
    """Looks at a template as a whole: what it mentions, what is wrong with it, and what a mail of it would say.

    In, JSON: {"subject" | null, "preheader" | null, "html" | null, "text" | null, "variables": {…} | null}; all may be
    absent. Out, JSON: {"variables": [name, …], "errors": […], "failures": […], "subject" | null, "html" | null,
    "text" | null}. "variables" are the names that must come from outside, sorted. "errors" never go away, whatever the
    values: a part does not compile, breaks a limit, or fails although it asks for no names. "failures" are of rendering
    parts with the values given. Both are lists of {"part", "line" | null, "reason"} in the order of the parts. Without
    either the rest is the mail, made as `prepare_mail` makes one, but without tracking.

    Raises CoreError for other JSON.
    """

def prepare_mail(mail: bytes, options: bytes) -> bytes:
    """Checks one transactional mail and makes the content that is stored and sent, whoever its recipients are.

    In, JSON: {"from": {"name" | null, "email"}, "to": [{"name" | null, "email"}, …], "cc": […], "bcc": […],
    "reply_to": […], "subject", "html" | null, "text" | null, "preheader" | null, "headers": {name: value} | null,
    "attachments": [{"filename", "content": base64, "content_type" | null, "content_id" | null,
    "disposition": "attachment" | "inline" | null}], "variables": {…} | null, "render": bool, "track_opens": bool,
    "track_clicks": bool, "base_url", "postal_address" | null}. All but "from", "to" and "subject" may be absent.
    `options`, JSON: {"max_mail_bytes": 10000000}, the largest mail as it travels, its parts counted as base64.

    With "render", subject, preheader, html and text are templates in the language of campaigns and `variables` fill
    them; without, they are taken as they stand. Then the preheader goes in as hidden text, a missing text part is
    made from the HTML, literal http(s) links lead through the click redirect and the open pixel is added, as in
    campaigns. There is no footer and no List-Unsubscribe: the postal address is not used.

    Out, JSON: "from", "to", "cc", "bcc", "reply_to", "subject", "html" | null, "text", "headers", "attachments" in
    the shapes above with their gaps filled, "links": [URL, …] (number `n` of `{base}/c/{token}/{n}` is at n - 1),
    "token": the 39 characters that stand for the track token in html and text until it is sent | null, and "mode":
    "simple" | "raw". The same input gives the same bytes.

    Raises MailError for what a customer can mend, template errors included, and CoreError for other JSON.
    """

def encode_mail_rows(
    stream_id: int, seqs: list[int], attempt: int, skips: list[int | None], emails: list[str], contents: list[bytes]
) -> bytes:
    """The rows of `Sender.submit_mails` for one attempt at mails that are at hand; the lists run side by side.

    Raises CoreError for lists of different lengths.
    """

def encode_recipient_row(
    seq: int,
    email: str,
    *,
    attempt: int = 1,
    skip: int | None = None,
    contact_id: int | None = None,
    name: str | None = None,
    first_name: str | None = None,
    last_name: str | None = None,
    custom_fields: bytes | None = None,
    tracked: bool = True,
) -> bytes:
    """A round of `Sender.submit` with one recipient, who need not stand in any table; `custom_fields` is a JSON object.

    OverflowError for a `seq` beyond 32, an `attempt` or a `skip` beyond 16 or a `contact_id` beyond 64 bits.
    """

@final
class Plan:
    """A stream's frozen content, compiled once per stream and process."""

    def __new__(cls, frozen: bytes, stream: bytes, codec: Codec) -> Plan:
        """`frozen` is what `freeze` gave. `stream`, JSON: {"stream_id", "account_id", "list_id" | null,
        "from_name" | null, "from_email", "reply_to": [address, …], "configuration_set" | null,
        "base_url", "mode": "slots" | "simple" | "canary"}.

        Mode "slots" sends the static body once per call of up to 50 recipients (SendBulkEmail) and
        falls back by itself where that cannot be; "simple" sends one by one (SendEmail); "canary" is
        slots without the falling back, down to a single recipient: what cannot go so fails.

        Raises TemplateError, ConfigError, or CoreError for other JSON.
        """

    def preview(self, contact: bytes) -> bytes:
        """One mail as its reader would see it, by the plain renderer.

        In, JSON: {"contact_id", "email", "name", "first_name", "last_name", "custom_fields": {…}, "tracked": bool};
        all but "email" may be absent or null. Out, JSON: {"subject", "html", "text"}.

        Raises TemplateError where rendering fails, CoreError for other JSON.
        """

@final
class Lease:
    """A deadline on CLOCK_BOOTTIME, moved on by jumps of the wall clock, in nanoseconds; shared with the sends it covers."""

    def __new__(cls, deadline_ns: int) -> Lease:
        """A lease until `deadline_ns`."""

    def extend(self, deadline_ns: int) -> None:
        """Moves the deadline later, also for sends under way; an earlier one changes nothing."""

    @staticmethod
    def now_ns() -> int:
        """Now on the same clock, which also counts the time in suspend."""

@final
class Sender:
    """Connections and credentials of one process towards SES in one region.

    It knows no pace: a round holds only as many recipients as its caller was granted.
    """

    def __new__(cls, options: bytes) -> Sender:
        """`options`, JSON: {"endpoint": "https://host[:port]" or "http://…", "region",
        "ca_pem": PEM text of the only certificates to trust | null for the public ones,
        "max_connections": 16, "call_timeout_ms": 10000}; the last three may be absent, others may
        not be added. Connects to nothing yet.

        Raises ConfigError.
        """

    def set_credentials(self, access_key: str, secret_key: str, session_token: str | None) -> None:
        """Sets or replaces the AWS credentials; rounds that began earlier keep theirs.

        Raises ConfigError for characters that no header can carry.
        """

    def submit(self, plan: Plan, rows: bytes, lease: Lease) -> asyncio.Future[Report]:
        """Sends one round; await the result in the running event loop.

        Columns of `rows`: seq int4, attempt int2, skip int2 null, contact_id int8 null, email text,
        name text null, first_name text null, last_name text null, custom_fields jsonb null, tracked bool null. A row
        with a `skip` is not sent; that code is its outcome. One that is not tracked gets no pixel and links as written.

        A call is written only if `lease` covers its whole time-out, checked after signing. Nothing
        is ever written twice, save when not a byte of it had left. Every row gets one outcome;
        whatever may have been accepted and has no answer is 6 (unknown).

        Cancelling the future does not stop the sends: their outcomes are lost to the caller, who
        must then take all rows for unknown.

        Raises CoreError for malformed rows and ConfigError without credentials (nothing was sent
        then), RuntimeError without a running event loop or in a process forked after first use.
        """

    def submit_mails(self, identity: bytes, rows: bytes, lease: Lease, codec: Codec) -> asyncio.Future[Report]:
        """Sends single mails, each to one address and by a call of its own; await the result in the running loop.

        `identity`, JSON: {"account_id", "configuration_set" | null}; other members are ignored. Columns of `rows`:
        stream_id int8, seq int4, attempt int2, skip int2 null, email text, content bytea; `email` is the address of
        this copy, `content` what `prepare_mail` gave. All rows are of one stream. A mail to one address travels as
        Simple; all copies of a mail to several show the same To and Cc, never Bcc, and travel as Raw.

        Rules, outcomes and exceptions are those of `submit`; content that is none is outcome 4 (failed).
        """

@final
class Report:
    """What a round came to."""

    @property
    def outcomes(self) -> bytes:
        """Rows (stream_id int8, seq int4, attempt int2, outcome int2, ses_message_id text null,
        error text null, account_id int8) for `results`, one per input row and in their order. `error` is a short
        reason without addresses, at most 200 characters, null for accepted and skipped.
        """

    @property
    def rows(self) -> list[tuple[int, int, str | None, str | None]]:
        """The same as (seq, outcome, ses_message_id, error), for mail whose every recipient has a request of their own."""

    @property
    def counts(self) -> dict[int, int]:
        """Outcome code → number of rows."""

    @property
    def throttled(self) -> int:
        """Recipients that were deferred because SES was asked for more than its rate; they are in `counts[3]` too."""

    @property
    def daily_quota_hit(self) -> bool:
        """Whether an answer said that the quota of the last 24 hours is used up. Those recipients are deferred."""

    @property
    def accepted_ranges(self) -> bytes:
        """JSON [[first, last], …]: the seqs of the accepted recipients, in order and merged."""

    @property
    def slots_recipients(self) -> int:
        """Recipients whose outcome comes from a bulk call that was written."""

    @property
    def simple_recipients(self) -> int:
        """Recipients whose outcome comes from a call of their own that was written."""

    @property
    def calls(self) -> int:
        """Calls of which a byte may have been written."""

    @property
    def render_ns(self) -> int:
        """Time in evaluating templates and building entries, summed over tasks, in ns."""

    @property
    def sign_ns(self) -> int:
        """Time in assembling, hashing and signing requests, summed over calls, in ns."""

    @property
    def call_ns(self) -> int:
        """Time between a request's first byte and its answer, summed over calls, in ns."""

@final
class SnsVerifier:
    """Decides which SNS envelopes are genuine. It never touches the network."""

    def __new__(cls, topic_arns: list[str], cert_hosts: list[str], max_age_s: int) -> SnsVerifier:
        """Accepts envelopes of exactly `topic_arns`, at most `max_age_s` seconds old.

        `cert_hosts` are further exact "host:port" pairs that may serve certificates, over http too,
        beside AWS's own rule: for a stand-in. Raises ConfigError.
        """

    def add_certificate_key(self, url: str, spki_der: bytes) -> None:
        """Makes the public key (DER SubjectPublicKeyInfo) of the certificate at `url` known.

        The caller has checked the certificate's chain and dates. Raises ConfigError for a URL that
        the rule forbids or a key that is not RSA.
        """

    def verify(self, bodies: list[bytes]) -> list[Envelope]:
        """One envelope per HTTP body, in order. Never raises for what is in a body."""

@final
class Envelope:
    """An SNS envelope after the check."""

    @property
    def status(self) -> str:
        """One of "ok", "need_certificate" (fetch it, add its key, verify again), "refused"."""

    @property
    def reason(self) -> str | None:
        """Why it was refused."""

    @property
    def certificate_url(self) -> str | None:
        """What to fetch when a certificate is needed; it has passed the rule."""

    @property
    def type(self) -> str:
        """Notification, SubscriptionConfirmation or UnsubscribeConfirmation; empty if unreadable."""

    @property
    def message_id(self) -> str:
        """The same in every delivery of one message."""

    @property
    def topic_arn(self) -> str:
        """The topic that it claims to come from."""

    @property
    def message(self) -> bytes:
        """The decoded message; empty unless ok."""

    @property
    def token(self) -> str | None:
        """What confirms a subscription; only if ok."""

    @property
    def subscribe_url(self) -> str | None:
        """Signed, but better never fetched: build the confirmation from ARN and token."""

def parse_events(codec: Codec, rows: bytes) -> ParsedEvents:
    """Turns SES events into rows.

    `rows` are (notification_id int8, body text or bytea), each body an SES event. What cannot be
    placed is parked with a reason; what is known and tells of no mail gives no row. `dedupe` is the attempt (0 when unknown) for what one mail has once, else a hash of
    what tells two of a kind apart. Raises CoreError only for malformed rows.
    """

@final
class ParsedEvents:
    """The rows made of a batch of notifications."""

    @property
    def events(self) -> bytes:
        """Rows (notification_id int8, stream_id int8, seq int4, attempt int2, kind int2, dedupe int8,
        at timestamptz null, address text null, ses_message_id text null, detail text null, machine text null).
        """

    @property
    def parked(self) -> bytes:
        """Rows (notification_id int8, reason text)."""

    @property
    def event_count(self) -> int:
        """Rows in `events`."""

    @property
    def parked_count(self) -> int:
        """Rows in `parked`."""

@final
class ImportCutter:
    """Cuts an upload of contacts into pieces at the ends of records, as its bytes come in; memory stays constant.

    Not for two threads at once: the second call raises RuntimeError.
    """

    def __new__(cls, format: str, delimiter: str | None = None) -> ImportCutter:  # noqa: A002
        """`format` is "csv" (the first line names the columns), "json" (a list, an object with one under `contacts`, or
        objects one after the other) or "jsonl" (objects one after the other). Without a `delimiter`, CSV has whichever of
        comma, semicolon, tab and bar its first line has most of. ValueError for anything else.
        """

    def feed(self, data: bytes) -> list[ImportPiece]:
        """Takes the next bytes; the pieces of about 768 KiB that they complete.

        Raises CoreError when the upload cannot be read, with a sentence for whoever sent it: not UTF-8, a row of more
        than 1 MiB, broken JSON, more than 100 columns.
        """

    def finish(self) -> list[ImportPiece]:
        """The upload is complete: the last pieces. Raises CoreError as `feed`, and for one that is empty or ends in the middle."""

    @property
    def columns(self) -> list[str] | None:
        """The names in the header of a CSV upload, once it is in."""

    @property
    def delimiter(self) -> str | None:
        """The delimiter of a CSV upload, once its header is in."""

    @property
    def envelope(self) -> bytes:
        """The JSON object around the contacts, with null in their place; empty where there is none."""

@final
class ImportPiece:
    """Whole records of an upload, in their order."""

    @property
    def body(self) -> bytes:
        """For `ImportPlan.read`."""

    @property
    def first_row(self) -> int:
        """The number of its first record. In CSV the header is 1 and blank lines do not count; JSON counts from 1."""

    @property
    def rows(self) -> int:
        """How many records there are."""

@final
class ImportPlan:
    """What the columns or keys of an upload mean."""

    def __new__(cls, options: bytes) -> ImportPlan:
        """`options`, JSON: {"format": "csv" | "json", "delimiter", "columns": [target | null, …], "mapping":
        {key: target | null}, "tags": […], "status": "subscribed" | "unsubscribed" | null}.

        A target is email, name, firstName, lastName, status, tags, tracking, customFields (an object) or customFields.x;
        null reads nothing. `columns` is for CSV; in JSON only keys with another name need a `mapping`. Raises CoreError.
        """

    def read(self, piece: bytes, first_row: int, valid: dict[str, str], refused: dict[str, str]) -> ImportRows:
        """Reads a piece; the same bytes give the same rows.

        `valid` (as written → as stored) and `refused` (as written → why) judge addresses with an international domain,
        which the core leaves to a library with Unicode's tables; empty at first, see `ImportRows.unknown`.
        Raises CoreError when the bytes are no piece of such an upload. What is wrong with a record is an error row.
        """

@final
class ImportRows:
    """The rows of a piece."""

    @property
    def contacts(self) -> bytes:
        """Rows (email text, name text null, first_name text null, last_name text null, name_given bool, status text null,
        tags text[], custom_fields jsonb, tracking bool null), one per address and in the order of lower(email).
        `name_given` tells a name that was given from one put together from its parts. Of several rows with one address,
        the last word counts.
        """

    @property
    def errors(self) -> bytes:
        """Rows (row int8, code text, reason text, email text null), in the order of the upload."""

    @property
    def contact_count(self) -> int:
        """Rows in `contacts`."""

    @property
    def error_count(self) -> int:
        """Rows in `errors`."""

    @property
    def doubled_count(self) -> int:
        """Rows that were merged into a later one of the same address: records = contacts + errors + doubled."""

    @property
    def field_names(self) -> list[str]:
        """Names of custom fields that occur, sorted."""

    @property
    def unknown(self) -> list[str]:
        """Addresses with an international domain in neither dictionary. If there are any, nothing else here is of use:
        judge them and read again.
        """

def check_address(text: str) -> tuple[str | None, str | None]:
    """(as stored, None), (None, why mail cannot be sent to it), or (None, None) for an international domain, of which
    the core is no judge. Agrees with `mailrail.addresses.parse_address`.
    """

def run_simulator(options: bytes) -> None:
    """Runs the SES stand-in until SIGTERM or SIGINT; blocks with the GIL released.

    `options`, JSON: {"host", "port", "directory", "access_key", "secret_key", "region",
    "max_send_rate", "max_24_hour_send", "verified_identities": […], "configuration_sets": […],
    "events_url" | null, "events_timeout_ms": 15000, "events_pause_max_ms": 5000, "topic_arn", "event_types": […], "retain_messages", "accept_log_file" | null,
    "signature_max_age_ms": 300000, …}; all may be absent. Prints `ready <port>` on standard output when it listens. Raises CoreError when it cannot start.
    """
