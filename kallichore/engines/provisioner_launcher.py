"""What provisioners start on this machine, by jupyter_client's launcher: kernels, and programs that launch kernels.

What a kernel elsewhere is to have for its environment is also what a program on this machine is started with that
launches it, and most pass it on. That has no PATH of ours. But a program here needs one: Python, for one, does not find
the virtual environment that it belongs to. So it is added where the program is started, which is not where provisioners
look for what a kernel is to have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextvars import ContextVar
from typing import Any

PATHLESS = frozenset({"kubernetes-provisioner", "spark-operator-provisioner"})
"""Provisioners whose programs put all that they have into a pod, where our PATH would hide the image's own. Both are
gateway_provisioners', and so is the one for Docker, which takes PATH out, and fails if there is none."""

provisioner: ContextVar[str] = ContextVar("provisioner", default="")
"""Whose launch a task is in."""


class LocalProcess(subprocess.Popen[Any]):
    """A process that is found by our PATH, where what it is started with has none."""

    def __init__(self, args: list[str], **keywords: Any) -> None:
        environment = keywords.get("env")
        if environment is not None and "PATH" not in environment:
            args = [shutil.which(args[0]) or args[0], *args[1:]]
            if provisioner.get() not in PATHLESS:
                keywords["env"] = {**environment, "PATH": os.environ.get("PATH", os.defpath)}
        super().__init__(args, **keywords)


def use_local_processes() -> None:
    """Have jupyter_client start processes in this way."""
    import jupyter_client.launcher

    jupyter_client.launcher.Popen = LocalProcess  # type: ignore[assignment,attr-defined]
