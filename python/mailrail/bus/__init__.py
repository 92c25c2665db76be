"""Doorbells between processes. A message wakes, it never carries truth: losing every one of them costs seconds.

messages.py has every message, versioned; outbox.py moves rows of table outbox onto the bus once they are committed;
postgres.py is the bus without a broker: NOTIFY and LISTEN.
"""
