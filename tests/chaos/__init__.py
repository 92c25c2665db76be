"""The kill harness: a whole installation of real processes, ended, frozen and cut off at random, and a judge who reads only
what the SES stand-in accepted and what the processes said they were about to do.

run.py is the way in (`python -m tests.chaos.run --help`); test_chaos.py runs it under pytest.
"""
