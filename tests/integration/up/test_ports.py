"""Which ports `up` takes, and that none of them is given away before somebody listens there."""

import socket
from pathlib import Path

import pytest

from mailrail.up.ports import PORTS, choose_port, is_free


def test_a_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    first = choose_port(tmp_path / "worker-port")
    assert choose_port(tmp_path / "worker-port") == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert not is_free(first)
        assert choose_port(tmp_path / "worker-port") != first


def test_the_kernel_gives_none_of_them_to_an_outgoing_connection() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest < 32_768:
        pytest.skip(f"this machine gives outgoing connections ports from {lowest} on, which no default of Linux does")
    assert PORTS.stop <= lowest


def test_two_files_never_have_one_port(tmp_path: Path) -> None:
    (tmp_path / "worker-port").write_text(f"{choose_port(tmp_path / 'postgres-port')}\n")
    assert choose_port(tmp_path / "postgres-port") != int((tmp_path / "worker-port").read_text())


def test_an_unreadable_file_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "worker-port").write_text("seven\n")
    port = choose_port(tmp_path / "worker-port")
    assert port in PORTS
    assert (tmp_path / "worker-port").read_text() == f"{port}\n"
