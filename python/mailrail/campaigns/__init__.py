"""One message to many: drafted, frozen and held when it is sent, carried out shard by shard, completed when none is open.

Owns campaigns, streams of kind 0, their audience and links; cuts the shards and folds that room emails then works on.
`service.py` has the verbs of the API, `handlers.py` the send loop of the workers, `schedule.py` what starts by itself,
`audience.py` whom it reaches, `content.py` what it says, `recipients.py` who got it and who did not, `rehearsal` all that can
be seen of it before it is sent. States: draft → scheduled → queued → sending → completed, with paused,
cancelled and failed beside (a reason says why); `model.TRANSITIONS` says which verb leads where; the API shows queued as
sending.
"""
