"""Double opt-in: the mails that ask, and the pages that take the answer (`/confirm`).

Owns no table: who is to be asked stands in list_members, where contacts writes it. Asking goes by transactional mail, untracked
and paid like any other; a GET of the page changes nothing, because scanners follow every link.
"""
