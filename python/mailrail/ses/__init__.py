"""What mailrail asks of SES beside sending: the account's quotas and the identities it may send from (`control.py`); and
the one pace that follows from the quotas (`limiter.py`).

The mail itself goes out by the Rust core.
"""
