"""What every route shares and nothing of any domain: bodies, fields, pages, errors, keys, the context of a request."""
