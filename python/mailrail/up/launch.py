"""Start a program that dies with its parent. Run as a file by a bare interpreter, so it imports nothing of mailrail:

    python -I -S launch.py SIGNAL PARENT_PID plain|namespace|nobody PROGRAM [ARGUMENT…]

PostgreSQL refuses to run as root, so root has two ways. `namespace` enters a user namespace as user 1000: files keep their owner on
the outside, and no mode of any folder has to change. `nobody` becomes that user, for systems that refuse namespaces.
"""

import ctypes
import os
import pwd
import signal
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
INNER_ID = 1000


def main() -> None:
    """User, then the death signal (a change of user clears it), then the check that closes the race, then the program."""
    death_signal, parent, mode = signal.Signals[sys.argv[1]], int(sys.argv[2]), sys.argv[3]
    if mode == "namespace":
        enter_user_namespace()
    if mode == "nobody":
        become_nobody()
    die_with_parent(death_signal)
    # A parent that died before prctl sends no signal any more.
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    os.execvp(sys.argv[4], sys.argv[4:])


def enter_user_namespace() -> None:
    """Be user 1000 to ourselves and still root's own id to the files."""
    user, group = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWUSER)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{INNER_ID} {user} 1")
    write("/proc/self/gid_map", f"{INNER_ID} {group} 1")


def become_nobody() -> None:
    """Drop root for good."""
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def die_with_parent(death_signal: signal.Signals) -> None:
    """Ask the kernel to signal us when the parent's thread ends. Only Linux has this."""
    if sys.platform == "linux":
        call("prctl", PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)


def call(name: str, *arguments: int) -> None:
    """One libc call; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*(ctypes.c_ulong(argument) for argument in arguments)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def write(path: str, text: str) -> None:
    """Write one of the kernel's files."""
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


if __name__ == "__main__":
    main()
