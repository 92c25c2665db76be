"""Addresses that get no mail, and why: they bounced, complained, were entered by hand, or belong to somebody who unsubscribed
and whose contact is gone.

Owns suppressions and suppression_hashes. Of an erased person only a keyed hash stays; where the address comes back, it is
woken as an ordinary row before anybody decides by it. Called by contacts, imports and emails; the applier of events adds
what bounced or complained.
"""
