"""Ports of loopback for what `up` starts. They are chosen a while before anybody listens on them, so they are taken from below those
that the kernel gives to outgoing connections, one of which might otherwise be given the same meanwhile.
"""

import random
import re
import socket
from pathlib import Path

# Linux gives from 32,768 on to outgoing connections, others from 49,152 (RFC 6335, dynamic ports).
PORTS = range(20_000, 32_000)


def choose_port(file: Path) -> int:
    """The port of last time if it is free, so that tools keep their connection settings, else any free one that no other file beside
    this one has.
    """
    kept = {
        other: int(text) for other in file.parent.glob("*-port") if re.fullmatch(r"\d+\s*", text := other.read_text())
    }
    last = kept.pop(file, None)
    if last is not None and last not in kept.values() and is_free(last):
        return last
    port = next(port for port in random.sample(PORTS, len(PORTS)) if port not in kept.values() and is_free(port))
    file.write_text(f"{port}\n")
    return port


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether one could listen on the port; a connection of yesterday in TIME_WAIT does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True
