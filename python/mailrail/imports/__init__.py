"""Contacts in bulk: an upload of any size in, its rows merged into contacts, and what became of each.

Owns imports, import_pieces and import_errors. An import is receiving, processing, completed, failed or cancelled. The API
cuts the upload into pieces at the ends of records and stores them as they come; workers merge a piece at a time, each in
one transaction with its progress and with the end of the piece, so that a crash anywhere loses and doubles nothing. All
rows of contacts are written by the room below, `contacts/merge.py`.
"""
