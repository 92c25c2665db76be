"""`mailrail up`: a supervisor of the production commands, with PostgreSQL and the simulator beside them, and the demo.

It owns no state but its data directory: `postgres/`, `logs/`, `secret`, the simulator's authority and the demo's notes.
"""
