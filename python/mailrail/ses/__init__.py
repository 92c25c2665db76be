"""What mailrail asks of SES beside sending: the account's quotas and the identities it may send from (`control.py`).

The mail itself goes out by the Rust core.
"""
