"""One line of the table of all routes, which stands in `app.py`."""

from typing import NamedTuple

from mailrail.errors import StartError
from mailrail.web.auth import Access
from mailrail.web.context import Handler
from mailrail.web.openapi import Operation


class Route(NamedTuple):
    """A door: who may call it stands beside it."""

    methods: str
    path: str
    access: Access
    handler: Handler
    # Whether the handler reads the body itself, as it comes.
    streams: bool = False

    @property
    def operation(self) -> Operation:
        """What the route says of itself. Raises StartError where it says nothing."""
        said = getattr(self.handler, "operation", None)
        if not isinstance(said, Operation):
            raise StartError(f"the route {self.methods} {self.path} has no @operation, so nobody could document it")
        return said
