"""What is done on another machine by a command of a moment: find a host there, end it, list the kernels, look around.

One file and only the standard library of Python 3.8, like the host itself. `kallichore.engines.ssh_errands` makes it
into something that can be given to a Python far away. What it finds it says as a line of JSON on standard output.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import stat
import string
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Where there are no Unix sockets, nothing of this could work.
assert sys.platform != "win32"

SAID = "kallichore: "
"""What the line begins with: a login shell may print lines of its own."""

NOBODY_LISTENS = 3
"""The exit code where there is no host."""

LAST_PATIENCE = 3.0
"""Seconds that a host and its kernel may take to be gone when they were killed."""

LONGEST_LINE = 300
"""Characters of a log's last line that are told."""

PAUSE = 0.02
"""Seconds between two looks at whether they are."""

NATIVE_KERNEL = "python3"
"""The name of the Python's own kernel, where none of that name is installed."""


NO = ("no", "n", "false", "off", "0", "")
"""What variables of Jupyter's say for no."""


def say(**found: Any) -> int:
    """Say what was found; return the exit code."""
    # On a line of its own, whatever was printed before.
    sys.stdout.write("\n" + SAID + json.dumps(found) + "\n")
    return 0


def parents() -> list[str]:
    """Return the directories in which a host may have made its own, see `make_private_directory` in `host.py`."""
    return [path for path in (os.environ.get("TMPDIR", ""), "/tmp") if os.path.isabs(path)]  # noqa: S108


def find(name: str) -> str | None:
    """Return the private directory of a host that has this name, if it is there and ours."""
    for parent in parents():
        path = os.path.join(parent, "kallichore-" + name)
        try:
            found = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            return path
    return None


def uptime() -> float:
    """Return the seconds since this machine was started."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def reach(name: str, mark: str, relay: Callable[[str], int]) -> int:
    """Carry bytes to a host and back; return the exit code.

    Args:
        name: What the host is called, as it was told.
        mark: What is said before: whatever comes before it was printed by others.
        relay: Carries them, see `relay.py`.
    """
    directory = find(name)
    if directory is None:
        code = NOBODY_LISTENS
    else:
        os.write(1, mark.encode())
        code = relay(os.path.join(directory, "host.sock"))
    if code == NOBODY_LISTENS:
        os.write(2, ("\n" + SAID + json.dumps(describe(directory)) + "\n").encode())
    return code


def describe(directory: str | None) -> dict[str, Any]:
    """Return what is there of a host, and how long this machine has been running."""
    if directory is None:
        return {"left": None, "listens": False, "log": "", "uptime": uptime()}
    listens = pid_of_listener(directory) > 0
    return {"left": directory, "listens": listens, "log": last_line(directory), "uptime": uptime()}


def last_line(directory: str) -> str:
    """Return the last line of what went wrong in a host; empty if nothing did."""
    try:
        with open(os.path.join(directory, "host.log"), errors="replace") as file:
            return file.read()[-LONGEST_LINE:].strip().rpartition("\n")[2]
    except OSError:
        return ""


def look(name: str) -> int:
    """Say whether a host is there, and how long this machine has been running."""
    return say(**describe(find(name)))


def end(name: str) -> int:
    """Kill a host, which ends its kernel, and remove its directory; say whether anything is left."""
    directory = find(name)
    if directory is None:
        return say(left=None)
    until = time.monotonic() + LAST_PATIENCE
    while find(name) is not None and time.monotonic() < until:
        # Again and again: one that is just starting puts files there, and listens only in the end.
        pid = pid_of_listener(directory)
        if pid > 1:
            # Who listens there cannot be another process by now: it has an open connection with us while we look.
            kill(pid)
        elif not pid:
            # One that could not be killed is not to be out of reach as well.
            shutil.rmtree(directory, ignore_errors=True)
        time.sleep(PAUSE)
    return say(left=find(name))


def kill(pid: int) -> None:
    """Kill a process, if it is there and ours."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def pid_of_listener(directory: str) -> int:
    """Return the process that listens in a directory; 0 if none does, 1 where the system does not tell which."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.path.join(directory, "host.sock"))
            if sys.platform == "linux":
                credentials = struct.Struct("3i")
                pid: int = credentials.unpack(
                    connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
                )[0]
                return pid or 1
            # sys/un.h: LOCAL_PEERPID of SOL_LOCAL.
            return connection.getsockopt(0, 2) if sys.platform == "darwin" else 1
        except OSError:
            return 0


# What there is


def survey() -> int:
    """Say what Python this is, and whether a host could listen here."""
    version = ".".join(map(str, sys.version_info[:3]))
    return say(version=version, python=sys.executable, problem=try_place(), uptime=uptime())


def try_place() -> str | None:
    """Return why no host could have a directory and a socket here; None if one could."""
    problem = "no directory for temporary files has an absolute path"
    for parent in parents():
        directory = os.path.join(parent, "kallichore-" + os.urandom(6).hex())
        try:
            os.mkdir(directory, 0o700)
            try:
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(os.path.join(directory, "host.sock"))
                return None
            finally:
                shutil.rmtree(directory, ignore_errors=True)
        except OSError as error:
            problem = f"{parent}: {error.strerror or error}"
    return problem


def kernelspecs() -> int:
    """Say what kernels are installed: the contents of their kernel.json, with what stands in them filled in."""
    found: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for folder in kernel_folders():
        name = os.path.basename(folder).lower()
        if name in found or name in broken:
            continue
        try:
            found[name] = read_kernel(folder)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            broken[name] = f"{folder}/kernel.json: {error}"
    if NATIVE_KERNEL not in found and importlib.util.find_spec("ipykernel"):
        found[NATIVE_KERNEL] = native_kernel()
    return say(kernelspecs=found, broken=broken)


def kernel_folders() -> list[str]:
    """Return the folders that have a kernel.json, in the order in which Jupyter looks."""
    folders = []
    for place in jupyter_path():
        kernels = os.path.join(place, "kernels")
        try:
            names = sorted(os.listdir(kernels))
        except OSError:
            # It is not there, or is closed: that takes the others from nobody.
            continue
        folders += [os.path.join(kernels, name) for name in names]
    return [folder for folder in folders if os.path.isfile(os.path.join(folder, "kernel.json"))]


def jupyter_path() -> list[str]:
    """Return the directories in which Jupyter looks for data, as jupyter_core does ("Data files" in its docs)."""
    user = os.environ.get("JUPYTER_DATA_DIR")
    if not user and sys.platform == "darwin":
        user = os.path.expanduser("~/Library/Jupyter")
    elif not user:
        base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
        user = os.path.join(base, "jupyter")
    own = os.path.join(sys.prefix, "share", "jupyter")
    prefers_own = os.environ.get("JUPYTER_PREFER_ENV_PATH")
    conda = os.environ.get("CONDA_PREFIX")
    is_environment = sys.prefix != sys.base_prefix or bool(conda and sys.prefix.startswith(conda))
    is_first = is_environment if prefers_own is None else prefers_own.lower() not in NO
    told = [path for path in os.environ.get("JUPYTER_PATH", "").split(os.pathsep) if path]
    return [*told, *((own, user) if is_first else (user, own)), "/usr/local/share/jupyter", "/usr/share/jupyter"]


def read_kernel(folder: str) -> dict[str, Any]:
    """Return what a kernel.json says, with placeholders, variables and a bare ``python`` filled in.

    Raises:
        ValueError: It cannot be used; so do the errors of a document that is otherwise than it should be.
    """
    with open(os.path.join(folder, "kernel.json"), encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    values = {"resource_dir": folder, "prefix": sys.prefix}
    argv = [re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), word) for word in document["argv"]]
    if not argv or not isinstance(document["argv"], list):
        raise ValueError("argv must be a list of words")
    own_names = ("python", "python3", f"python3.{sys.version_info[1]}")
    if argv[0] in own_names and folder.startswith(os.path.join(sys.prefix, "")):
        argv[0] = sys.executable
    env = document.get("env") or {}
    filled = {str(name): string.Template(str(value)).safe_substitute(os.environ) for name, value in env.items()}
    return {**document, "argv": argv, "env": filled}


def native_kernel() -> dict[str, Any]:
    """Return what a kernel.json of this Python's own ipykernel would say."""
    return {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"Python {sys.version_info[0]} (ipykernel)",
        "language": "python",
        "env": {},
    }
