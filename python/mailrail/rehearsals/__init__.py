"""A campaign before it is sent: how it looks to a contact, how it arrives in a few inboxes, and what a launch would do.

Nothing here changes the campaign. A test is transactional mail, taken and paid as such; a dry run asks every question of a
launch and answers with all that stands in its way.
"""
