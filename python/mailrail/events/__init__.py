"""What SES tells about a mail, from the SNS envelope to the state of a recipient.

Owns notifications, notification_queue, parked_notifications and events; what SES says of an address also goes to
contacts and suppressions, set-wise. `routes.py` is the intake: verify, store raw,
answer 200; nothing else happens while SNS waits. `handlers.py` is the applier: batches of raw rows become events,
suppressions and shards to fold. Events may come twice, late, out of order and before our own result: they are only ever
added to a set, and emails/fold.py reads the set.
"""
