"""Sanic's protocol, with the one thing that its time-outs lack."""

from sanic.http.constants import Stage
from sanic.server.protocols.http_protocol import HttpProtocol


class Protocol(HttpProtocol):
    """Sanic restarts its time-outs with every byte that comes in, so that a client could send a head for ever, one byte at a
    time. Here a head, and a body that nobody wants any more, have one time-out from their first byte on.
    """

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        http, began = self.http, self._time
        is_prolonged = http is not None and (
            http.stage is Stage.REQUEST or (http.stage is Stage.IDLE and http.request_body)
        )
        super().data_received(data)
        if is_prolonged:
            self._time = began
