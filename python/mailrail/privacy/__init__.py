"""What a person may ask of those who hold data about him: to see all of it, and to be forgotten.

Owns erasures. Both reach over the rooms below, which find and take out what is theirs; this room says in which order. The
contact goes with the request, a worker goes through the mail, and a keyed hash keeps the person from being written to again.
"""
