"""The errors of the domain: one class per thing that a caller can act on. No HTTP here; `web/errors.py` alone knows it."""


class MailrailError(Exception):
    """Something went wrong that a caller can act on."""

    code = "error"
    # The field of the request that is to blame, where there is one.
    param: str | None = None

    def __str__(self) -> str:
        """The message given, else the first line of the class's docstring."""
        return super().__str__() or (type(self).__doc__ or "").strip().splitlines()[0]


class ConfigError(MailrailError):
    """A setting has a value that mailrail cannot start with."""

    code = "config_invalid"


class DatabaseError(MailrailError):
    """The database cannot be reached, or is not the one that this installation needs."""

    code = "database_unusable"


class StartError(MailrailError):
    """A process that mailrail needs did not start or did not stay."""

    code = "start_failed"


class IdempotencyKeyInUse(MailrailError):
    """A request with this Idempotency-Key is under way. Wait for its answer, or send the same request again soon."""

    code = "idempotency_key_in_use"
    retry_after_s = 1

    def __init__(self, existing: object = None) -> None:
        """`existing` is what the key belongs to, as (kind, row number), where that is known."""
        super().__init__()
        self.existing = existing


class IdempotencyKeyReused(MailrailError):
    """This Idempotency-Key came with another request. Repeat that one exactly, or choose a new key."""

    code = "idempotency_key_reused"
    param = "Idempotency-Key"

    def __init__(self, existing: object = None) -> None:
        """As above."""
        super().__init__()
        self.existing = existing
