"""Benches: each checks its result before it times anything, and prints machine and method."""
