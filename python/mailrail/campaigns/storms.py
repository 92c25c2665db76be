"""Mails of a campaign that SES accepts and then cannot render: too many of them stop it. For the applier of events."""

import logging
from collections.abc import Mapping

from mailrail.campaigns import canary_store, store
from mailrail.campaigns.delivery import is_storm, storm_reason
from mailrail.db.pool import Connection

log = logging.getLogger(__name__)


async def count(conn: Connection, failures: Mapping[int, int]) -> dict[int, int]:
    """Adds failures that are new, by stream, in the order of the streams; returns those of the campaigns that have to stop, as
    many as each has in all.
    """
    storms = {}
    for stream_id in sorted(failures):
        so_far, accepted = await canary_store.add_rendering_failures(conn, stream_id, failures[stream_id])
        if is_storm(so_far, accepted):
            storms[stream_id] = so_far
    return storms


async def stop(conn: Connection, storms: Mapping[int, int]) -> None:
    """In transactions of its own: a pause locks shards, and whoever applies events has locked their folds. Whom a crash spares
    in between the next failure stops.
    """
    for stream_id, failures in storms.items():
        log.error("storms: stream=%d is paused, %d mails could not be rendered", stream_id, failures)
        async with conn.transaction():
            await store.pause_campaign(conn, stream_id, storm_reason(failures))
            await canary_store.leave_slots(conn, stream_id, storm_reason(failures))
