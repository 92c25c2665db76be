"""What is under way in a process, by the lines that it wrote."""

import os
from pathlib import Path

from mailrail.failpoints import Failpoints
from tests.chaos.history import STARTED, History, Scribe, SelfEnd


def test_a_span_is_open_from_its_first_line_to_its_last(tmp_path: Path) -> None:
    path = tmp_path / "history"
    points = Failpoints({"MAILRAIL_TEST_HISTORY": str(path)})
    history = History(path)
    assert history.read() == []
    with points.span("claim", stream_id=3):
        points.hit("claim.committed", seqs=[1, 2])
        with points.span("result"):
            history.read()
            assert history.open_spans(os.getpid()) == {"claim", "result"}
        history.read()
        assert history.open_spans(os.getpid()) == {"claim"}
    history.read()
    assert history.open_spans(os.getpid()) == set()
    assert (history.hits["claim.committed"], history.last_point(os.getpid())) == (1, "claim.committed")


def test_a_process_that_begins_has_nothing_under_way_whoever_had_its_number(tmp_path: Path) -> None:
    path = tmp_path / "history"
    scribe = Scribe(path)
    history = History(path)
    scribe.write("call.open", pid=7, span="call", call=1)
    history.read()
    assert history.open_spans(7) == {"call"}
    scribe.write(STARTED, pid=7, role="send")
    history.read()
    assert history.open_spans(7) == set()
    scribe.close()


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b'{"ns":1,"pid":4,"point":"a.b"}\n{"ns":2,"pid":4,"poi')
    history = History(path)
    history.read()
    assert history.hits == {"a.b": 1}
    with path.open("ab") as file:
        file.write(b'nt":"a.b","end":"stop"}\n')
    assert history.read() == [SelfEnd(4, "a.b", "stop")]
    assert (history.hits["a.b"], history.self_end(4)) == (2, None)
