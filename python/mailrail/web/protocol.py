"""Sanic's protocol, with what its time-outs and its answers to strangers lack."""

from sanic.http.constants import Stage
from sanic.http.http1 import Http
from sanic.server.protocols.http_protocol import HttpProtocol


class Exchange(Http):
    """Sanic answers what it cannot read in the name of a bare request. It would give it the very address that it could not
    read, and fail once more, beyond all handlers.
    """

    __slots__ = ()

    def create_empty_request(self) -> None:
        """Called where there is no request yet."""
        self.url = None
        super().create_empty_request()


class Protocol(HttpProtocol):
    """Sanic restarts its time-outs with every byte that comes in, so that a client could send a head for ever, one byte at a
    time. Here a head, and a body that nobody wants any more, have one time-out from their first byte on.
    """

    HTTP_CLASS = Exchange

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        http, began = self.http, self._time
        is_prolonged = http is not None and (
            http.stage is Stage.REQUEST or (http.stage is Stage.IDLE and http.request_body)
        )
        super().data_received(data)
        if is_prolonged:
            self._time = began
