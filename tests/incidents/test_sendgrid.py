"""SendGrid: mail that is lost while somebody repairs something else."""

from mailrail.emails.model import OPEN_STATES, State
from tests.support.incidents import accepted, mails, states
from tests.support.installation import Installation
from tests.support.waiting import until

RECIPIENTS = 180


async def test_sendgrid_2022_10_03_lost_during_mitigation(installation: Installation) -> None:
    """3 October 2022: mail was dropped during a mitigation, and no status ever said which.

    A campaign is stopped in the middle, with calls in flight that SES never answers: everybody ends in a named state, and
    the list of who did not get it is exactly those whom SES did not accept. Breaks when cancel forgets recipients whom no
    claim named (emails/fold.py), or who is unknown (reconcile.py).
    """
    await installation.set_faults(latency_ms=80, drop_request=0.3, drop_reply_after_accept=0.2, seed=11)
    tenant = await installation.add_sender(RECIPIENTS)
    campaign_id = await installation.send_campaign(tenant)

    async def is_under_way() -> bool:
        return accepted(installation) >= 40

    await until(is_under_way, "the first mails")
    assert (await tenant.post(f"/api/v1/campaigns/{campaign_id}/cancel")).status == 200

    async def is_settled() -> bool:
        found = await states(tenant)
        return sum(found.values()) == RECIPIENTS and not set(found) & set(OPEN_STATES)

    await until(is_settled, "a final state for everybody")
    found = await states(tenant)
    assert set(found) <= {State.DELIVERED, State.CANCELLED, State.UNRESOLVED}
    assert found[State.CANCELLED] > 0
    async with installation.api.operator.acquire() as conn:
        missed = await conn.fetch(
            """SELECT a.email, r.reason FROM recipient_state r JOIN audience a USING (stream_id, seq)
               WHERE r.account_id = $1 AND r.state <> $2""",
            tenant.account_id,
            State.DELIVERED,
        )
    assert all(row["reason"] for row in missed)
    everybody = sorted(f"p{n}@example.net" for n in range(1, RECIPIENTS + 1))
    assert sorted([*mails(installation), *(row["email"] for row in missed)]) == everybody
    assert await installation.audit() == []
