"""Where customers want to hear of their mail, and the telling: endpoints, what happened, and each try to say it.

Owns webhook_endpoints, webhook_messages, webhook_deliveries and webhook_attempts. Messages are written where things happen, by
triggers (migration 0010), only of types that somebody asks for. `handlers.py` is the dispatcher, `lanes.py` keeps slow and
dead endpoints from holding up the others, `transport.py` and `destinations.py` see to it that no request goes where it must
not, `payload.py` makes and signs what is sent. Secrets are stored sealed for their account and row (`sealing.py`).

Every message arrives at least once, with the same `webhook-id` each time, in no order: `createdAt` says when it happened.
"""
