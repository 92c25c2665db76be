"""The probe's ten checks: what each sends, what it looks for, and the answer. Only what was seen is yes or no."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from mailrail.aws.probe_mail import DEAF, FAULTS, Heard, Letter, Post, Reply
from mailrail.config import Settings, ses_endpoint
from mailrail.ses.answers import QUESTIONS, Answer, Question, Verdict

# The ceiling of calls is looked for with at most so many at once, and at least so many, or nothing could be told.
CALLS_MAX = 10
CALLS_MIN = 3
# Requests of a little more than a million bytes, and of a little more than a mebibyte.
REQUEST_SIZES = (1_000_500, 1_050_000)
HARD_TEXT = "<b>&\"'`\\ 漢字 😀"
BRACES = "{{missing}} {{#if z}}y{{/if}} {{{t}}} }} {{"
UNSUBSCRIBE = ("List-Unsubscribe", "List-Unsubscribe-Post")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long events, and the end of a silent connection, are waited for."""

    events_s: float = 60.0
    idle_s: float = 90.0


PATIENCE = Patience()


def yes(question: Question, detail: str, value: float | None = None) -> Answer:
    """It was seen to be so."""
    return Answer(question, Verdict.YES, detail, value)


def no(question: Question, detail: str, value: float | None = None) -> Answer:
    """It was seen not to be so."""
    return Answer(question, Verdict.NO, detail, value)


def unseen(question: Question, detail: str) -> Answer:
    """Nothing was seen that would tell."""
    return Answer(question, Verdict.UNKNOWN, detail)


def judge_refusal(post: Post, question: Question, reply: Reply) -> Answer:
    """A request that was refused: a no only where SES finds fault with the request itself, having taken a plain one."""
    refused = f"refused: {reply.words}"
    is_fault = reply.refusal[0] in FAULTS and (post.takes_plain or question is Question.SLOT_LETTERS)
    return no(question, refused) if is_fault else unseen(question, refused)


# —— 1 —————————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def check_calls(post: Post) -> list[Answer]:
    """As many bulk calls at once as the rate has recipients in a second: are some refused all the same?"""
    question = Question.BULK_CALLS
    calls = min(CALLS_MAX, int(await post.rate()))
    if calls < CALLS_MIN:
        return [unseen(question, f"the account's rate leaves no room for {CALLS_MIN} calls in a second")]
    await post.take_tokens(calls)
    began = time.monotonic()
    replies = await asyncio.gather(*(post.send_now(Letter()) for _ in range(calls)))
    took_s = max(time.monotonic() - began, 1e-3)
    post.throttled = [reply for reply in replies if reply.is_throttled]
    accepted = sum(reply.is_accepted for reply in replies)
    seen = f"{accepted} of {calls} calls were taken within {took_s:.1f} s"
    if post.throttled:
        return [no(question, f"{seen}, the others were told {post.throttled[0].words}", accepted / max(1.0, took_s))]
    if accepted < calls:
        failed = next(reply for reply in replies if not reply.is_accepted)
        return [unseen(question, f"{seen}; refused: {failed.words}")]
    if took_s > 1:
        return [unseen(question, f"{seen}, too slowly to tell")]
    return [yes(question, seen, calls / took_s)]


# —— 2 —————————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def check_slots(post: Post) -> list[Answer]:
    """A plain mail by slots; then what the engine may or may not bear, each by a mail of its own."""
    reply, heard = await _exchange(post, Letter(data={"a": HARD_TEXT}))
    post.takes_plain = reply.is_accepted
    plain = _judge(post, Question.SLOT_LETTERS, reply, heard)
    doubtful = {
        Question.SLOT_DIGITS: Letter(html="<p>{{s0}}</p>", data={"a": "x", "s0": "y"}),
        Question.CLOSING_BRACES: Letter(html="<style>@media print{p{color:red}}</style><p>{{a}}</p>"),
        Question.BRACE_NEIGHBOURS: Letter(html="<p>{{{a}}} \\{{a}}</p>"),
        # An engine that reads values again finds that `missing` has no value.
        Question.BRACES_IN_VALUES: Letter(data={"a": BRACES}),
    }
    if plain.verdict is not Verdict.YES:
        why = f"a plain mail by slots did not arrive either ({plain.detail})"
        return [plain, *(unseen(question, why) for question in doubtful)]
    return [
        plain,
        *[_judge(post, question, *await _exchange(post, letter)) for question, letter in doubtful.items()],
    ]


def _judge(post: Post, question: Question, reply: Reply, heard: Heard | None) -> Answer:
    if not reply.is_accepted:
        return judge_refusal(post, question, reply)
    if heard is None:
        return unseen(question, DEAF)
    if heard.failure is not None:
        return no(question, f"taken and not delivered: {heard.failure}")
    return yes(question, "delivered")


async def _exchange(post: Post, letter: Letter) -> tuple[Reply, Heard | None]:
    reply = await post.send(letter)
    return reply, await post.hear(reply.number) if reply.is_accepted else None


# —— 3 —————————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def check_bytes(post: Post) -> list[Answer]:
    """Requests a little larger than a million bytes, in both meanings of a megabyte."""
    largest = 0
    for size in REQUEST_SIZES:
        reply = await post.send(Letter(html=f"<p>{'x' * size}{{{{a}}}}</p>"))
        if not reply.is_accepted:
            if largest:
                seen = f"one of {largest:,} bytes is taken, one of {size:,} refused: {reply.words}"
                return [yes(Question.REQUEST_BYTES, seen, largest)]
            return [judge_refusal(post, Question.REQUEST_BYTES, reply)]
        largest = size
    return [yes(Question.REQUEST_BYTES, f"one of {largest:,} bytes is taken", largest)]


# —— 4 —————————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def check_refusals(post: Post) -> list[Answer]:
    """A good entry beside one whose address is none. The rate and the quota are nobody's to exceed on purpose."""
    reply = await post.send(Letter(other_addresses=("nobody",)))
    question = Question.INVALID_ADDRESS
    if reply.error is not None:
        address = judge_refusal(post, question, reply)
    elif len(reply.entries) == 2 and reply.is_accepted and reply.entries[1][0] != "SUCCESS":
        status, text = reply.entries[1]
        address = yes(question, f"the other entry has {status} {text!r}")
    else:
        address = unseen(question, f"the entries have {', '.join(status for status, _ in reply.entries)}")
    return [address, _throttle_seen(post), unseen(Question.DAILY_QUOTA, "asking would use up the day's quota")]


def _throttle_seen(post: Post) -> Answer:
    question = Question.THROTTLED_ENTRIES
    if not post.throttled:
        return unseen(question, "no call was throttled; asking would slow everybody's mail down")
    reply = post.throttled[0]
    return (no if reply.error else yes)(question, f"the first check saw {reply.words}")


# —— 5 to 8: what the events show of a mail ————————————————————————————————————————————————————————————————————————————


async def check_headers(post: Post) -> list[Answer]:
    """Both unsubscribe headers: in which order the event lists them, and whether it shows the signature."""
    headers = ((UNSUBSCRIBE[0], "<https://example.com/u/probe>"), (UNSUBSCRIBE[1], "List-Unsubscribe=One-Click"))
    reply, heard = await _exchange(post, Letter(headers=headers))
    names = [name.lower() for name, _ in _headers(heard)]
    if heard is None or not set(map(str.lower, UNSUBSCRIBE)) <= set(names):
        order = unseen(Question.HEADER_ORDER, _why_unseen(reply, heard, "the event does not list the headers"))
    elif names.index("list-unsubscribe") < names.index("list-unsubscribe-post"):
        order = yes(Question.HEADER_ORDER, "the event lists them so")
    else:
        order = no(
            Question.HEADER_ORDER, "the event lists List-Unsubscribe-Post first, which hides the button of some readers"
        )
    return [order, _signed_headers(heard)]


def _signed_headers(heard: Heard | None) -> Answer:
    question = Question.DKIM_HEADERS
    signatures = [value for name, value in _headers(heard) if name.lower() == "dkim-signature"]
    if not signatures:
        return unseen(
            question, "only a mailbox shows it: send a test to one of yours and look at h= of its DKIM-Signature"
        )
    signed = [set(_signed(signature)) for signature in signatures]
    is_signed = any(set(map(str.lower, UNSUBSCRIBE)) <= names for names in signed)
    return (yes if is_signed else no)(question, "by the signature in the event")


def _signed(signature: str) -> list[str]:
    for part in signature.split(";"):
        name, _, value = part.strip().partition("=")
        if name == "h":
            return [one.strip().lower() for one in value.split(":")]
    return []


async def check_tags(post: Post) -> list[Answer]:
    """A default tag, and another of the entry's own: does the event show both?"""
    question = Question.TAGS_MERGE
    reply, heard = await _exchange(post, Letter(default_tags=(("probeDefault", "1"),), tags=(("probeOwn", "1"),)))
    tags = _mail(heard).get("tags", {})
    if "probeOwn" not in tags:
        return [unseen(question, _why_unseen(reply, heard, "the event does not show the tags"))]
    if "probeDefault" in tags:
        return [yes(question, "the event shows the default tag beside the entry's own")]
    return [no(question, "the event shows the entry's own tag only")]


async def check_subject(post: Post) -> list[Answer]:
    """Letters beyond ASCII in the template and in its value."""
    question = Question.SUBJECT_UTF8
    expected = "Grüße 漢字 😀"
    reply, heard = await _exchange(post, Letter(subject="Grüße {{a}}", data={"a": "漢字 😀"}))
    if not reply.is_accepted:
        return [judge_refusal(post, question, reply)]
    if heard is not None and heard.failure is not None:
        return [no(question, f"taken and not delivered: {heard.failure}")]
    subject = _mail(heard).get("commonHeaders", {}).get("subject")
    if subject is None:
        return [unseen(question, _why_unseen(reply, heard, "delivered, but the event does not show the subject"))]
    if subject == expected:
        return [yes(question, "the event shows it as written")]
    return [no(question, f"the event shows {subject!r} instead of {expected!r}")]


async def check_header_slots(post: Post) -> list[Answer]:
    """A slot in the value of a header."""
    question = Question.SLOTS_IN_HEADERS
    reply, heard = await _exchange(post, Letter(headers=(("X-Mailrail-Probe", "{{a}}"),), data={"a": "filled"}))
    if not reply.is_accepted:
        return [judge_refusal(post, question, reply)]
    values = [value for name, value in _headers(heard) if name.lower() == "x-mailrail-probe"]
    if values == ["filled"]:
        return [yes(question, "the event shows the value")]
    if values == ["{{a}}"]:
        return [no(question, "the event shows the braces as they were written")]
    return [unseen(question, _why_unseen(reply, heard, "the event does not show the header"))]


def _why_unseen(reply: Reply, heard: Heard | None, otherwise: str) -> str:
    if not reply.is_accepted:
        return f"refused: {reply.words}"
    if heard is None:
        return DEAF
    return f"taken and not delivered: {heard.failure}" if heard.failure is not None else otherwise


def _mail(heard: Heard | None) -> dict[str, Any]:
    found: dict[str, Any] = heard.event.get("mail", {}) if heard else {}
    return found


def _headers(heard: Heard | None) -> list[tuple[str, str]]:
    return [(one["name"], one["value"]) for one in _mail(heard).get("headers", [])]


# —— 9 —————————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def check_connection(settings: Settings, patience: Patience) -> list[Answer]:
    """No mail: what TLS agrees on, and when a connection that has had one answer is closed."""
    url = urlsplit(ses_endpoint(settings))
    if url.scheme != "https" or url.hostname is None:
        return [unseen(question, "the endpoint has no TLS") for question in (Question.HTTP_2, Question.IDLE_TIMEOUT)]
    try:
        return [
            await _agreed_protocol(url.hostname, url.port, settings),
            await _idle(url.hostname, url.port, settings, patience),
        ]
    except (OSError, TimeoutError, EOFError) as error:
        why = f"the connection failed ({type(error).__name__})"
        return [unseen(question, why) for question in (Question.HTTP_2, Question.IDLE_TIMEOUT)]


async def _agreed_protocol(host: str, port: int | None, settings: Settings) -> Answer:
    _, writer = await _connect(host, port, settings, ["h2", "http/1.1"])
    agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()
    return (yes if agreed == "h2" else no)(Question.HTTP_2, f"TLS agrees on {agreed or 'nothing'}")


async def _idle(host: str, port: int | None, settings: Settings, patience: Patience) -> Answer:
    question = Question.IDLE_TIMEOUT
    reader, writer = await _connect(host, port, settings, ["http/1.1"])
    try:
        writer.write(f"GET /v2/email/account HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n".encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), patience.idle_s)).lower()
        if b"connection: close" in head:
            return unseen(question, "it was closed at once after an answer that refused")
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience.idle_s):
                while await reader.read(4096):
                    began = time.monotonic()
        except TimeoutError:
            return no(question, f"not within {patience.idle_s:g} s", patience.idle_s)
        except OSError:
            pass
        silent_s = time.monotonic() - began
        return yes(question, f"after {silent_s:.0f} s", silent_s)
    finally:
        writer.close()


async def _connect(
    host: str, port: int | None, settings: Settings, protocols: Sequence[str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cafile=settings.ses_ca_file or None)
    context.set_alpn_protocols(list(protocols))
    return await asyncio.wait_for(asyncio.open_connection(host, port or 443, ssl=context), 10)


# —— 10 ————————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def check_tenant(post: Post) -> list[Answer]:
    """Not asked: a tenant costs money by the month, and pausing one needs rights that mailrail has no other use for."""
    return [
        unseen(Question.PAUSED_TENANT, "not asked: it takes a tenant that is paid for and paused; mailrail uses none")
    ]


Check: TypeAlias = Callable[..., Awaitable[list[Answer]]]
CHECKS: tuple[Check, ...] = (
    check_calls,
    check_slots,
    check_bytes,
    check_refusals,
    check_headers,
    check_tags,
    check_subject,
    check_header_slots,
    check_connection,
    check_tenant,
)
MAILS_MAX = CALLS_MAX + 5 + len(REQUEST_SIZES) + 2 + 4


def unknown(check: Check, why: str) -> list[Answer]:
    """The check's questions, none of which could be asked."""
    number = CHECKS.index(check) + 1
    return [unseen(question, why) for question, (one, _) in QUESTIONS.items() if one == number]
