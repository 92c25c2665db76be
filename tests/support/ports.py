"""Ports of loopback for what a test starts: such as the kernel gives to no outgoing connection before somebody listens there, not
even to one that dials the very port of a broker that is dead.
"""

import itertools
import os
import random

from mailrail.up.ports import is_free

# Below those that `mailrail up` chooses from; each process of pytest has every sixteenth, so that two never choose the same.
PORTS = range(10_000, 20_000)
SHARES = 16
_OURS = list(PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % SHARES :: SHARES])
random.shuffle(_OURS)
_NEXT = itertools.cycle(_OURS)


def free_port() -> int:
    """A port that nobody listens on, and that this process gave to nobody lately."""
    return next(port for port in _NEXT if is_free(port))
