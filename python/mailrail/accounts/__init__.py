"""Who uses this installation: accounts with a plan, a price and defaults for their mail, and the API keys that act for them.

Owns accounts and api_keys. Accounts are made on the command line. Keys are made there or by
other keys, which may do no less (`auth.py` is their form).
"""
