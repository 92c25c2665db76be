"""The figures of the demo, and when they are good enough for status 0."""

import io
from dataclasses import replace
from pathlib import Path

import orjson

from mailrail.up import summary
from mailrail.up.progress import ProgressBar, bar
from mailrail.up.summary import Summary, describe, problems
from mailrail.wallet.model import dollars

GOOD = Summary(
    base_url="http://127.0.0.1:8025",
    api_key="sk_live_x",
    domain="news.example.com",
    recipients=20_000,
    accepted=20_000,
    delivered=19_600,
    bounced=400,
    failed=0,
    skipped=0,
    open=0,
    seconds=2.0,
    settle_seconds=5.0,
    emails_per_second=10_000.0,
    held_micros=6_000_000,
    captured_micros=5_880_000,
    released_micros=120_000,
)


def test_good_figures_have_no_problem() -> None:
    assert problems(GOOD, []) == []


def test_each_flaw_is_named() -> None:
    assert problems(replace(GOOD, open=3, delivered=19_597), []) == ["3 recipients are open"]
    assert problems(replace(GOOD, delivered=19_599), []) == ["the states count 19999 recipients of 20000"]
    assert "is not what was captured" in problems(replace(GOOD, released_micros=0), [])[0]
    assert problems(GOOD, ["postings of transfer 5"]) == ["the ledger does not balance: postings of transfer 5"]


def test_the_file_has_exactly_the_promised_fields(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    summary.write(GOOD, file)
    assert set(orjson.loads(file.read_bytes())) == {
        "base_url", "api_key", "domain", "recipients", "accepted", "delivered", "bounced", "failed", "skipped", "open", "seconds",
        "settle_seconds", "emails_per_second", "held_micros", "captured_micros", "released_micros",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_the_description_shows_exact_money() -> None:
    assert "$5.88" in describe(GOOD)
    assert "$0.12" in describe(GOOD)
    assert dollars(300) == "$0.0003"
    assert dollars(-1_500_000) == "-$1.50"
    assert dollars(0) == "$0.00"


def test_only_a_finished_bar_is_full() -> None:
    assert bar(0, 10).startswith("░")
    assert "░" in bar(9_999, 10_000)
    assert bar(9_999, 10_000).endswith("99 %")
    assert bar(10, 10).endswith("100 %")
    assert "░" not in bar(10, 10)


def test_without_a_terminal_lines_come_now_and_then() -> None:
    out = io.StringIO()
    progress = ProgressBar(10, out)
    for done in range(10):
        progress.show(done, "words")
    progress.close(10, "done")
    assert len(out.getvalue().splitlines()) == 2
    assert "\r" not in out.getvalue()


def test_a_terminal_is_redrawn_in_place() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    progress = ProgressBar(10, out)
    progress.show(1, "a")
    progress.show(1, "a")
    progress.show(2, "b")
    progress.close(10, "c")
    assert out.getvalue().count("\r") == 3
    assert out.getvalue().endswith("c\n")
