"""The probe against the simulator, whose answers are known, and against one that is silent or capped."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailrail.aws import probe
from mailrail.aws.probe_checks import CHECKS, MAILS_MAX, Patience
from mailrail.aws.probe_mail import DEAF
from mailrail.ses import store
from mailrail.ses.answers import QUESTIONS, Answer, Question, Verdict
from mailrail.ses.limiter import name_of
from tests.support.installation import Installation, installed
from tests.support.postgres import Database

PATIENCE = Patience(events_s=20.0, idle_s=15.0)
IDLE_MS = 2000
# As the simulator is built: rust/simulator/src/{template,rules,bulk,events}.rs.
KNOWN = {
    Question.BULK_CALLS: Verdict.YES,
    Question.SLOT_LETTERS: Verdict.YES,
    Question.SLOT_DIGITS: Verdict.NO,
    Question.CLOSING_BRACES: Verdict.NO,
    Question.BRACE_NEIGHBOURS: Verdict.NO,
    Question.BRACES_IN_VALUES: Verdict.YES,
    Question.REQUEST_BYTES: Verdict.NO,
    Question.INVALID_ADDRESS: Verdict.YES,
    Question.THROTTLED_ENTRIES: Verdict.UNKNOWN,
    Question.DAILY_QUOTA: Verdict.UNKNOWN,
    Question.HEADER_ORDER: Verdict.YES,
    Question.DKIM_HEADERS: Verdict.UNKNOWN,
    Question.TAGS_MERGE: Verdict.YES,
    # Its events, like those of SES itself, do not show the subject of a mail by template.
    Question.SUBJECT_UTF8: Verdict.UNKNOWN,
    Question.SLOTS_IN_HEADERS: Verdict.NO,
    Question.HTTP_2: Verdict.NO,
    Question.IDLE_TIMEOUT: Verdict.YES,
    Question.PAUSED_TENANT: Verdict.UNKNOWN,
}


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path / "simulator", idle_timeout_ms=IDLE_MS) as running:
        tenant = await running.api.add_tenant()
        await tenant.verify_domain()
        yield running


async def ask(installation: Installation, patience: Patience = PATIENCE) -> dict[Question, Answer]:
    return {answer.question: answer async for answer in probe.ask(installation.settings, patience)}


async def test_the_simulator_answers_as_it_is_built(installation: Installation) -> None:
    answers = await ask(installation)
    assert list(answers) == list(QUESTIONS), "all of them, in the order of the checks"
    assert {question: answer.verdict for question, answer in answers.items()} == KNOWN, answers
    assert [number for number, _ in QUESTIONS.values()] == sorted(number for number, _ in QUESTIONS.values())
    assert {number for number, _ in QUESTIONS.values()} == set(range(1, len(CHECKS) + 1))
    assert "INVALID_PARAMETER" in answers[Question.INVALID_ADDRESS].detail
    assert "unsupported operations" in answers[Question.SLOT_DIGITS].detail
    idle_s = answers[Question.IDLE_TIMEOUT].value
    assert idle_s is not None
    assert IDLE_MS / 1000 - 1 < idle_s < IDLE_MS / 1000 + 5
    accepted = installation.simulator.get("accepted?from=0&limit=1000")["mails"]
    assert 0 < len(accepted) <= MAILS_MAX
    assert all(to.endswith("@simulator.amazonses.com") for mail in accepted for to in mail["to"])


async def test_answers_are_stored_asked_again_and_told_with_their_age(installation: Installation) -> None:
    first = Answer(Question.SLOT_LETTERS, Verdict.NO, "long ago", 1.0)
    async with installation.worker.pool.acquire() as conn:
        await store.write_answer(conn, name_of(installation.settings), first)
        await store.write_answer(conn, "another account", first)
        await conn.execute("UPDATE ses_answers SET asked_at = now() - interval '3 days'")
    ((old),) = [one for one in await probe.stored(installation.settings) if one.question is Question.SLOT_LETTERS]
    assert probe.line(old).endswith("long ago (asked 3 days ago)")
    await ask(installation)
    stored = {answer.question: answer for answer in await probe.stored(installation.settings)}
    assert {question: answer.verdict for question, answer in stored.items()} == KNOWN
    assert probe.line(stored[Question.SLOT_LETTERS]).endswith("delivered (asked today)")


async def test_a_ceiling_of_bulk_calls_is_found(installation: Installation) -> None:
    await installation.set_faults(bulk_calls_per_s=2.0)
    answers = await ask(installation)
    calls = answers[Question.BULK_CALLS]
    assert (calls.verdict, calls.value) == (Verdict.NO, 2.0), calls
    assert answers[Question.THROTTLED_ENTRIES].verdict is Verdict.NO, "the whole call was refused"


async def test_without_events_what_needs_them_stays_unknown_and_the_probe_ends_soon(installation: Installation) -> None:
    await installation.set_faults(lose_events=1.0)
    answers = await ask(installation, Patience(events_s=1.0, idle_s=5.0))
    for question in (Question.SLOT_LETTERS, Question.HEADER_ORDER, Question.TAGS_MERGE, Question.SLOTS_IN_HEADERS):
        assert answers[question].verdict is Verdict.UNKNOWN
        assert answers[question].detail == DEAF
    assert "a plain mail by slots did not arrive either" in answers[Question.SLOT_DIGITS].detail
    assert answers[Question.REQUEST_BYTES].verdict is Verdict.NO, "this one needs no event"


async def test_a_mail_that_is_not_rendered_is_a_no(installation: Installation) -> None:
    await installation.set_faults(rendering_failure=1.0)
    answers = await ask(installation)
    assert answers[Question.SLOT_LETTERS].verdict is Verdict.NO
    assert "Attribute 'spoiled' is not present" in answers[Question.SLOT_LETTERS].detail
    assert answers[Question.BRACES_IN_VALUES].verdict is Verdict.UNKNOWN


async def test_a_refusal_that_is_not_of_the_request_proves_nothing(database: Database, tmp_path: Path) -> None:
    async with installed(database, tmp_path / "other", verified_identities=["other.example"]) as installation:
        await (await installation.api.add_tenant()).verify_domain()
        answers = await ask(installation, Patience(events_s=1.0, idle_s=1.0))
        known = {question for question, answer in answers.items() if answer.verdict is not Verdict.UNKNOWN}
        assert known == {Question.HTTP_2, Question.IDLE_TIMEOUT}
        assert "not verified" in answers[Question.SLOT_LETTERS].detail


async def test_without_a_verified_domain_nothing_is_sent(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with installed(database, tmp_path / "bare", idle_timeout_ms=500) as installation:
        async with installation.api.operator.acquire() as conn:
            await conn.execute("UPDATE domains SET status = 'pending'")
        assert await probe.run(installation.settings) == 0
        shown = capsys.readouterr().out
        assert "no domain of this installation is verified" in shown
        assert f"at most {MAILS_MAX} mails" in shown
        assert installation.simulator.get("stats")["accepted"] == 0
