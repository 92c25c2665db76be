"""What readers want: the page behind the link to unsubscribe (`/u`), the one click of mail programs, and the way back.

Owns no table: a reader's word changes contacts and memberships and is kept as consent. A token is the only credential: no cookie
says who asks, so a foreign page can send nothing that its maker could not send himself. A GET changes nothing.
"""
