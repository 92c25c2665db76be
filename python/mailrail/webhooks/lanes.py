"""Who may send how much at once: a lane for each endpoint, so that one that is slow or dead holds up nobody else.

A lane begins narrow, becomes wider with each answer, half as wide with each silence, and closes for a while once an endpoint
of width one is silent again. Nothing here is stored: each dispatcher learns it anew within seconds.
"""

from dataclasses import dataclass

WIDTH_START = 4
WIDTH_MAX = 32
CLOSED_MAX_S = 60.0
LANES_MAX = 10_000


@dataclass(slots=True)
class Lane:
    """Requests to one endpoint. Times are of a monotonic clock, in seconds."""

    width: int = WIDTH_START
    under_way: int = 0
    # Silences in a row since the lane was down to one.
    silences: int = 0
    closed_until_s: float = 0.0

    def room(self, now_s: float) -> int:
        """How many more requests may begin."""
        return 0 if now_s < self.closed_until_s else max(0, self.width - self.under_way)

    def answered(self) -> None:
        """The endpoint answered, whatever it said."""
        self.width = min(self.width + 1, WIDTH_MAX)
        self.silences = 0
        self.closed_until_s = 0.0

    def silent(self, now_s: float) -> None:
        """The endpoint did not answer in time, could not be reached, or asked for fewer requests."""
        if self.width == 1:
            self.silences += 1
            self.closed_until_s = now_s + min(CLOSED_MAX_S, 2.0**self.silences)
        self.width = max(1, self.width // 2)


class Lanes:
    """The lanes of a dispatcher, by endpoint."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}

    def __getitem__(self, endpoint_id: int) -> Lane:
        """The endpoint's lane, a new one if there is none."""
        return self._lanes.setdefault(endpoint_id, Lane())

    def rooms(self, now_s: float) -> dict[int, int]:
        """The room in each lane that is known; in others it is WIDTH_START."""
        self._forget_idle()
        return {endpoint_id: lane.room(now_s) for endpoint_id, lane in self._lanes.items()}

    def _forget_idle(self) -> None:
        if len(self._lanes) > LANES_MAX:
            self._lanes = {id_: lane for id_, lane in self._lanes.items() if lane.under_way or lane.silences}
