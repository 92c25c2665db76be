"""How much of a tenant's mail bounces or is called spam, and what follows from it before Amazon SES draws its own conclusions for
all tenants together.

Owns reputation_hours and reputations. The applier of events counts and has the tenant judged; emails and campaigns ask before they
take mail; `campaigns/reputation.py` pauses what is under way.
"""
