"""Doorbells between processes. A message wakes, it never carries truth: losing every one of them costs seconds.

messages.py has every message, versioned; outbox.py moves rows of table outbox onto the bus once they are committed; two
buses carry them: kafka.py, and postgres.py without a broker, by NOTIFY and LISTEN; parking.py keeps what nobody could read.
"""
