"""People to write to, the lists they are on, and their consent, which has two levels: the contact's own status, and that
of each membership.

Owns contacts, contact_fields, lists, list_members and suppressions. A contact is subscribed, unsubscribed, bounced or
complained; an address is unique per account whatever its case, and stored as written. Called by campaigns (whom to
write to), events (suppression) and tracking (unsubscribing).
"""
