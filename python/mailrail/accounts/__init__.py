"""Who uses this installation: accounts with a plan, a price and defaults for their mail, and the API keys that act for them.

Owns accounts and api_keys. Accounts and keys are made on the command line; the API only reads them (`auth.py`).
"""
