"""The dialect /v1/mail: translation only. Its routes read its wire form, call the same services as /api/v1 and print
their answer in its own words; there is no rule and no SQL here.
"""
