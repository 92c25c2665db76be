"""A test per transition: what each verb does to a campaign of each status."""

import pytest

from mailrail.campaigns.model import TRANSITIONS, AlreadySent, CampaignStateWrong, Status, Step, Verb, decide

# Written out by hand, so that a change of the table has to be meant.
ACTS = {
    Verb.LAUNCH: {"draft", "failed"},
    Verb.SCHEDULE: {"draft", "failed", "scheduled"},
    Verb.PAUSE: {"scheduled", "queued", "sending"},
    Verb.RESUME: {"paused"},
    Verb.CANCEL: {"scheduled", "queued", "sending", "paused"},
    Verb.RETRY: {"queued", "sending", "completed"},
    Verb.CHANGE: {"draft", "scheduled", "failed"},
    Verb.DELETE: {"draft", "cancelled", "failed"},
}
KEEPS = {
    Verb.PAUSE: {"paused"},
    Verb.RESUME: {"scheduled", "queued", "sending"},
    Verb.CANCEL: {"cancelled"},
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("verb", Verb)
def test_a_verb_acts_keeps_or_is_refused_with_a_remedy(verb: Verb, status: Status) -> None:
    if status in ACTS[verb]:
        assert decide(verb, status) is Step.ACT
    elif status in KEEPS.get(verb, ()):
        assert decide(verb, status) is Step.KEEP
    else:
        with pytest.raises(CampaignStateWrong) as refused:
            decide(verb, status)
        said = str(refused.value)
        assert said.startswith(f"This campaign is {status.shown}. ")
        assert len(said) > len(f"This campaign is {status.shown}. ") + 20, "it says what to do"


def test_the_table_knows_every_status_of_every_verb() -> None:
    assert set(TRANSITIONS) == set(Verb)
    assert all(set(steps) == set(Status) for steps in TRANSITIONS.values())


@pytest.mark.parametrize("status", [Status.QUEUED, Status.SENDING, Status.COMPLETED])
def test_a_second_launch_is_told_by_its_own_code(status: Status) -> None:
    with pytest.raises(AlreadySent):
        decide(Verb.LAUNCH, status)


def test_a_cancelled_campaign_never_comes_back() -> None:
    for verb in set(Verb) - {Verb.CANCEL, Verb.DELETE}:
        with pytest.raises(CampaignStateWrong):
            decide(verb, Status.CANCELLED)
