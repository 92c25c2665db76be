"""Where customers want to hear of their mail: endpoints with the events that they ask for and the secrets that sign them.

Owns webhook_endpoints. Secrets are stored sealed for their account and row (`sealing.py`). Nothing is delivered here yet.
"""
