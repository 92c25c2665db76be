"""Prepaid money: a double-entry ledger in integer micro-dollars (1 USD = 1,000,000).

Owns ledger_accounts, transfers, postings and holds. Each tenant has four ledger accounts; a transfer moves an amount
from one to another and is never edited. A campaign takes a hold when it starts; each recipient's settlement captures
or releases its part, and the hold closes when nothing of it is left. Called by campaigns (hold) and emails (settle).
"""
