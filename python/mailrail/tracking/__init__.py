"""What the readers of a mail do with it: open it (`/o`) and follow its links (`/c`).

Owns no table: opens and clicks become events, a batch at a time. A token is the only credential, and it sets no cookie.
"""
