"""What the self-contained kcserver runs: the command, with an environment as if it had not been packed."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys

from kallichore.cli.kcserver import main


def restore_environment() -> None:
    """Take back what the boot loader changed for itself: kernels inherit the environment."""
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
        original = os.environ.pop(f"{name}_ORIG", None)
        if original is not None:
            os.environ[name] = original
        else:
            os.environ.pop(name, None)
    for name in [name for name in os.environ if name.startswith("_PYI_") or name == "_MEIPASS2"]:
        del os.environ[name]


def run_program() -> None:
    """Be the interpreter that there is none of here: run the file that is named, as ``python -I -S`` does."""
    del sys.argv[:3]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    restore_environment()
    if sys.argv[1:3] == ["-I", "-S"]:
        # The program beside a kernel (kallichore.engines.local).
        run_program()
    else:
        sys.exit(main())
