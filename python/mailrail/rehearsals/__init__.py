"""A campaign before it is sent: how it looks to a contact, how it arrives in a few inboxes, what a launch would do, and
all that should be looked at before.

Nothing here changes the campaign. A test is transactional mail, taken and paid as such; a dry run asks every question of a
launch and answers with all that stands in its way; a pre-flight checks the mail itself, too.
"""
