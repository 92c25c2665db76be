"""The judge finds each kind of wrong, and nothing in a clean run."""

from pathlib import Path

import orjson
import pytest

from mailrail._core import Codec
from tests.chaos.checker import CANARY, Accepted, Claim, accepted_in, claims_of, judge
from tests.oracle.tokens import Tokens

SECRET = b"a secret of the tests, long enough to be one"
CODEC = Codec(SECRET)
ASKED = {"one": ["a@x.net", "b@x.net"], "two": ["c@x.net"]}
CLAIMS = [Claim(8, 1, range(1, 3)), Claim(9, 1, [1]), Claim(9, 2, [1])]


def mail(to: str, stream_id: int, seq: int, attempt: int = 1) -> Accepted:
    return Accepted(to, Tokens(SECRET).tag(stream_id, seq, attempt))


CLEAN = [mail("a@x.net", 8, 1), mail("b@x.net", 8, 2), mail("c@x.net", 9, 1, 2), Accepted(CANARY, "")]


def test_a_clean_run_has_no_sentences() -> None:
    verdict = judge(CLEAN, CLAIMS, ASKED, CODEC)
    assert verdict.sentences() == []
    assert (verdict.asked, verdict.accepted, verdict.resent) == (3, 3, 1)


@pytest.mark.parametrize(
    ("accepted", "claims", "sentence"),
    [
        ([*CLEAN, mail("a@x.net", 8, 1)], CLAIMS, "1 accepted twice: a@x.net"),
        ([*CLEAN, mail("c@x.net", 9, 1)], CLAIMS, "1 accepted twice: c@x.net"),
        (CLEAN[1:], CLAIMS, "1 never accepted: a@x.net"),
        ([*CLEAN, mail("d@x.net", 8, 1)], CLAIMS, "1 accepted but never asked for: d@x.net"),
        (CLEAN, CLAIMS[:2], "1 accepted without a committed claim: c@x.net"),
        (CLEAN, [Claim(8, 1, [2]), *CLAIMS[1:]], "1 accepted without a committed claim: a@x.net"),
        (
            [Accepted("a@x.net", "forged"), *CLEAN[1:]],
            CLAIMS,
            "1 accepted without a committed claim: a@x.net",
        ),
        (
            [CLEAN[0], mail("b@x.net", 8, 1), *CLEAN[2:]],
            CLAIMS,
            "1 accepted under the number of somebody else: b@x.net",
        ),
    ],
)
def test_each_wrong_is_found(accepted: list[Accepted], claims: list[Claim], sentence: str) -> None:
    assert judge(accepted, claims, ASKED, CODEC).sentences() == [sentence]


def test_who_is_openly_unresolved_is_not_lost_but_may_not_be_written_to_twice() -> None:
    excused = frozenset({"a@x.net"})
    assert judge(CLEAN[1:], CLAIMS, ASKED, CODEC, excused).sentences() == []
    assert judge([*CLEAN, CLEAN[0]], CLAIMS, ASKED, CODEC, excused).duplicates == ["a@x.net"]


def test_an_address_belongs_to_one_campaign() -> None:
    with pytest.raises(ValueError, match="two campaigns"):
        judge([], [], {"one": ["a@x.net"], "two": ["a@x.net"]}, CODEC)


def test_claims_are_ranges_or_lists() -> None:
    facts = {"point": "claim.committed", "stream_id": 8, "shard": 0, "claim_id": 5, "attempt": 1}
    read = list(claims_of([facts | {"first_seq": 4, "last_seq": 6}, facts | {"seqs": [1, 9]}, {"point": "rows.read"}]))
    assert [list(claim.seqs) for claim in read] == [[4, 5, 6], [1, 9]]


def test_an_accept_log_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "accepted.jsonl"
    lines = [
        {"number": 0, "to": ["a@x.net"], "id": "eml_1", "tag": "t1", "at": "2026-01-01T00:00:05Z"},
        {"number": 1, "to": "b@x.net", "id": "", "tag": ""},
    ]
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    assert accepted_in(file) == [Accepted("a@x.net", "t1", "2026-01-01T00:00:05Z"), Accepted("b@x.net", "")]
