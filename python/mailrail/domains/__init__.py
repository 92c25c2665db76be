"""Sending domains: which of them an account may write from, as SES says (`ses/control.py`), and what DNS has to say for their mail
to arrive. Owns table domains.

States: pending → verified or failed, and back, whenever SES is asked: at once, by its owner's wish, and by the watcher
(`handlers.py`). DNS decides nothing but whose a domain is: it is asked in `dns.py`, judged record by record in `records.py`, by
the rules of `spf.py` and `dmarc.py`, and put together in `inspection.py`.
"""
