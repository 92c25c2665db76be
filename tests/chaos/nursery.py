"""Processes of mailrail without the second of CPU that each start would cost: one process imports everything and forks.

The nursery itself never starts a loop, a thread or the core's runtime, so that a child is what a fresh process would be after its
imports. A child runs `mailrail.__main__.main` as production does. Everything dies with its parent: the nursery with the harness,
the children with the nursery.

Wire: JSON lines over a socket. `{"id", "arguments", "environment", "output"}` forks; `{"id", "pid"}` answers; `{"pid", "status"}` tells
of an end, negative for a signal.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import select
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

from mailrail.up.child import PLAIN, launch_command
from mailrail.up.launch import die_with_parent
from tests.chaos.history import STARTED

REPOSITORY = Path(__file__).resolve().parents[2]
# What the processes import on their way; each is loaded once, before the first fork.
WARM = ("mailrail.__main__", "mailrail.app", "mailrail.worker", "mailrail.db.migrate", "mailrail.failpoints", "uvloop")
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Process:
    """A child of the nursery. `ended` gets its exit status, negative for a signal."""

    name: str
    pid: int
    handle: int
    ended: "asyncio.Future[int]"

    def signal(self, which: signal.Signals) -> bool:
        """Whether it was there to be signalled. By its pidfd, so never another process that got its number."""
        if self.handle < 0:
            return False
        try:
            signal.pidfd_send_signal(self.handle, which)
        except ProcessLookupError:
            return False
        return True


class Nursery:
    """The harness's end of the wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._living: dict[int, Process] = {}
        # Ends that were told before `fork` returned.
        self._early: dict[int, int] = {}

    async def fork(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path) -> Process:
        """Starts `mailrail …arguments` with these variables, its output appended to a file."""
        number = len(self._asked) + 1
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        request = {
            "id": number,
            "name": name,
            "arguments": list(arguments),
            "environment": dict(environment),
            "output": str(output),
        }
        self._writer.write(orjson.dumps(request) + b"\n")
        async with asyncio.timeout(START_TIMEOUT_S):
            pid = await answer
        process = Process(name, pid, _open_handle(pid), asyncio.get_running_loop().create_future())
        if pid in self._early:
            _finish(process, self._early.pop(pid))
        else:
            self._living[pid] = process
        return process

    async def listen(self) -> None:
        """Takes in what the nursery tells, until it is gone."""
        while line := await self._reader.readline():
            told = orjson.loads(line)
            if "id" in told:
                self._asked[told["id"]].set_result(told["pid"])
                # A number is used again only after its end was told, so nothing early is left of an older life.
                self._early.pop(told["pid"], None)
            elif told["pid"] in self._living:
                _finish(self._living.pop(told["pid"]), told["status"])
            else:
                self._early[told["pid"]] = told["status"]
        # The kernel ends the children of a nursery that is gone; it takes a moment.
        for process in self._living.values():
            if process.handle >= 0:
                select.select([process.handle], [], [], END_TIMEOUT_S)
            _finish(process, -signal.SIGKILL)
        self._living.clear()


def _finish(process: Process, status: int) -> None:
    if process.handle >= 0:
        os.close(process.handle)
        process.handle = -1
    if not process.ended.done():
        process.ended.set_result(status)


def _open_handle(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


@contextlib.asynccontextmanager
async def nursery(output: Path, patches: Sequence[str] = ()) -> AsyncIterator[Nursery]:
    """A nursery for the length of a block; all of its children are gone after it. Call it from the main thread.

    `patches` are `module:function` of controls, called once before the first fork.
    """
    ours, theirs = socket.socketpair()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAILRAIL_")}
    paths = [str(REPOSITORY), str(REPOSITORY / "python")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    program = [sys.executable, "-m", "tests.chaos.nursery", str(theirs.fileno()), *patches]
    command = launch_command(program, signal.SIGKILL, PLAIN)
    with output.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            cwd=REPOSITORY,
            pass_fds=[theirs.fileno()],
        )
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    listening = None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            ready = await reader.readline()
        if not ready:
            raise RuntimeError(f"the nursery did not start:\n{output.read_text()[-2000:]}")
        served = Nursery(reader, writer)
        listening = asyncio.create_task(served.listen())
        yield served
    finally:
        writer.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if listening is not None:
            await listening


# —— the nursery's own side ————————————————————————————————————————————————————————————————————————————————————————————


def serve(wire: socket.socket, patches: Sequence[str] = ()) -> None:
    """Forks on request until the harness closes the wire."""
    for module in WARM:
        importlib.import_module(module)
    for patch in patches:
        _apply(patch)
    gc.collect()
    # Keeps the collector from touching, and so copying, what parent and children share.
    gc.freeze()
    selector = selectors.DefaultSelector()
    selector.register(wire, selectors.EVENT_READ)
    wire.sendall(b"ready\n")
    handles: dict[int, int] = {}
    rest = b""
    while True:
        for key, _ in selector.select():
            if key.fileobj is not wire:
                pid = handles.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(pid, 0)
                _tell(wire, {"pid": pid, "status": os.waitstatus_to_exitcode(status)})
                continue
            data = wire.recv(1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                request = orjson.loads(line)
                pid = _fork(request)
                handle = os.pidfd_open(pid)
                handles[handle] = pid
                selector.register(handle, selectors.EVENT_READ)
                _tell(wire, {"id": request["id"], "pid": pid})


def _tell(wire: socket.socket, message: dict[str, Any]) -> None:
    wire.sendall(orjson.dumps(message) + b"\n")


def _fork(request: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _live(request, parent)
    return pid


def _live(request: dict[str, Any], parent: int) -> NoReturn:
    """The child's whole life."""
    status = 1
    try:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        _redirect(request["output"])
        for name in [name for name in os.environ if name.startswith("MAILRAIL_")]:
            del os.environ[name]
        os.environ.update(request["environment"])
        from mailrail import failpoints

        failpoints.rearm(os.environ)
        failpoints.hit(STARTED, role=request["name"])
        status = _run(request["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of a process
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _run(arguments: list[str]) -> int:
    if arguments[0] == "stand-in":  # the simulator with any option, of which its command knows only some
        from mailrail import _core

        _core.run_simulator(arguments[1].encode())
        return 0
    from mailrail.__main__ import main

    return main(arguments)


def _redirect(output: str) -> None:
    # The wire, the selector and the handles of brothers and sisters are not the child's.
    os.closerange(3, 4096)
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(nothing)
    os.close(file)


def _apply(patch: str) -> None:
    """`module:function` of a control, called before the first fork."""
    module, _, function = patch.partition(":")
    getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
