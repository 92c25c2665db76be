"""A plan is its seed's, and only ends that interrupt something count."""

from itertools import islice

from tests.chaos.faults import ALL_POINTS, Action, Tally, chances, fingerprint, plan

MEANS = {Action.KILL: 0.5, Action.FREEZE: 3.0, Action.DATABASE_CRASH: 20.0, Action.BROKER_KILL: 0.0}


def test_a_plan_is_the_same_for_the_same_seed_and_in_order() -> None:
    first = list(islice(plan(7, MEANS), 500))
    assert first == list(islice(plan(7, MEANS), 500))
    assert first != list(islice(plan(8, MEANS), 500))
    assert fingerprint(7, MEANS) == fingerprint(7, MEANS) != fingerprint(8, MEANS)
    assert [step.at_s for step in first] == sorted(step.at_s for step in first)
    kills = [step.at_s for step in first if step.action is Action.KILL]
    assert 0.4 < kills[-1] / len(kills) < 0.6
    assert {step.action for step in first} == {Action.KILL, Action.FREEZE, Action.DATABASE_CRASH}


def test_one_action_more_does_not_move_the_others() -> None:
    with_broker = [
        s for s in islice(plan(7, MEANS | {Action.BROKER_KILL: 5.0}), 500) if s.action is not Action.BROKER_KILL
    ]
    assert with_broker == list(islice(plan(7, MEANS), len(with_broker)))


def test_points_that_lag_behind_get_larger_chances() -> None:
    hits = {"frequent": 1000, "rare": 10, "done": 50}
    kills = {"frequent": 5, "rare": 0, "done": 30}
    armed = chances(["frequent", "rare", "done", "untried"], hits, kills, wanted=20, elapsed_s=100, left_s=100)
    assert armed["frequent"]["kill"] == 0.02
    assert armed["rare"]["kill"] == 0.25
    assert "done" not in armed
    assert 0 < armed["untried"]["kill"] < 0.25
    assert chances(["call.checked"], {}, {"call.checked": 99}, 20, 1, 1)["call.checked"].keys() == {"stop"}


def test_only_an_end_with_something_under_way_counts() -> None:
    tally = Tally()
    assert tally.killed("send", ["claim", "call"], "call.written", None)
    assert not tally.killed("send", [], "shard.released", "shard.released")
    assert not tally.killed("relay", ["message"], "relay.read", "relay.read")
    assert (tally.kills, tally.relay, tally.idle) == (1, 1, {"send": 1})
    assert tally.arrows == {"call.written": 1}
    assert tally.at_points == {"shard.released": 1, "relay.read": 1}


def test_no_role_gets_more_than_half() -> None:
    tally = Tally()
    for _ in range(10):
        tally.killed("send", ["claim"], "x", None)
        tally.killed("api", ["event"], "x", None)
    assert tally.is_spared("send")
    for _ in range(10):
        tally.killed("apply", ["event"], "x", None)
    assert not tally.is_spared("send")
    assert tally.largest_share() == 1 / 3


def test_every_point_has_one_owner() -> None:
    assert len(ALL_POINTS) == len(set(ALL_POINTS)) == 30
