"""Sending domains: which of them an account may write from, as SES says (`ses/control.py`). Owns table domains.

States: pending → verified or failed, and back, whenever SES is asked.
"""
