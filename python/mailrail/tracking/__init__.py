"""What the readers of a mail do with it: open it (`/o`), follow its links (`/c`), unsubscribe (`/u`).

Owns no table: opens and clicks become events, a batch at a time; unsubscribing changes contacts and memberships. A token
is the only credential, it sets no cookie, and a GET of the unsubscribe page changes nothing.
"""
