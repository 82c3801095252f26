"""Every moment at which a command can be killed: a copy of the folder before each of its system calls that changes files.

`python kill_points.py GALLERY COPIES COMMAND` runs one command in a child and stops it at each such call (ptrace). What it has written until
then is what a process that is killed there leaves. Equal states are kept once.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

TRACEME, PEEKUSER, SYSCALL, SETOPTIONS, SYSGOOD = 0, 3, 24, 0x4200, 1
NUMBER, THIRD_ARGUMENT = 8 * 15, 8 * 12  # where x86-64 keeps them
OPENAT, CREATES = 257, os.O_CREAT | os.O_TRUNC
CHANGES = {1, 18, 20, 76, 77, 82, 83, 87, 263, 264, 285, 296, 316}  # write, truncate, rename, unlink and their siblings
AVAILABLE = sys.platform == "linux" and platform.machine() == "x86_64"


def copy_states(command: Callable[[], object], folder: Path, copies: Path) -> int:
    """Returns how the command ended. The copies are named 0, 1 and so on."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype, libc.ptrace.argtypes = ctypes.c_long, [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    child = os.fork()
    if child == 0:
        libc.ptrace(TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        command()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    libc.ptrace(SETOPTIONS, child, None, SYSGOOD)
    seen, entering, passed_on = set[str](), True, 0
    while True:
        if libc.ptrace(SYSCALL, child, None, passed_on) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        is_call = os.WSTOPSIG(status) == signal.SIGTRAP | 0x80
        passed_on = 0 if is_call else os.WSTOPSIG(status)
        if not is_call:
            continue
        if entering:
            number = libc.ptrace(PEEKUSER, child, NUMBER, None)
            creates = number == OPENAT and libc.ptrace(PEEKUSER, child, THIRD_ARGUMENT, None) & CREATES
            if (number in CHANGES or creates) and (state := _digest(folder)) not in seen:
                shutil.copytree(folder, copies / str(len(seen)))
                seen.add(state)
        entering = not entering


def _digest(folder: Path) -> str:
    files = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    return hashlib.sha256(repr(files).encode()).hexdigest()


if __name__ == "__main__":
    import mmretrieve as mm

    path, target, name = sys.argv[1:]
    gallery = mm.Gallery.open(path, device="cpu")
    os.makedirs(target, exist_ok=True)
    commands: dict[str, Callable[[], object]] = {
        "compact": gallery.compact,
        "build": gallery.build_index,
        "delete": lambda: gallery.delete(gallery.ids[:1]),
    }
    sys.exit(copy_states(commands[name], Path(path), Path(target)))
