"""Many scripted kernels that share their memory: ``python kernel_farm.py PIPE``, where PIPE is a named pipe.

Each line that is written there, a connection file, makes a kernel: a fork of this process, which has loaded everything
already, and takes 3 MB instead of 20. What its host started and takes for it is `COMMAND`, which ends with it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kernel import Kernel  # only now is it found, and it brings the commands of benchmarks

COMMAND = 'mkfifo "$0.end" && echo "$0" > "$1" && exec cat "$0.end"'
"""What ``sh -c`` is to run in a kernel's place; the connection file and the pipe follow."""


def serve(file: str) -> None:
    """Be a kernel, for whose end what stands for it waits by a pipe."""
    with open(f"{file}.end", "w"):
        os.unlink(f"{file}.end")
        Kernel(file, {}).run()


def main() -> None:
    """Make kernels until this is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    gc.freeze()
    # For writing as well: it does not end while nobody has it open.
    with open(os.open(sys.argv[1], os.O_RDWR)) as orders:
        while file := orders.readline().rstrip("\n"):
            if os.fork() == 0:
                serve(file)


if __name__ == "__main__":
    main()
