"""The kernels that are installed on this machine, where Jupyter looks for them.

The places are jupyter_core's; the files are kernel.json as the Jupyter docs have it ("Kernel specs"). Reading them
here spares kcclient all of jupyter_client.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import attrs

from kallichore.errors import KernelNotFoundError
from kallichore.models.bodies import InterruptMode, NewSession, VarAction, VarActionType

logger = logging.getLogger(__name__)


@attrs.frozen
class KernelSpec:
    """An installed kernel.

    Its ``kernel_protocol_version`` is not among this: ipykernel says 5.5 there and does not register itself (JEP 66),
    so what it says is no ground to start it any other way than with a connection file.
    """

    name: str
    argv: tuple[str, ...]
    display_name: str
    language: str
    resource_dir: str
    env: dict[str, str] = attrs.field(factory=dict)
    interrupt_mode: InterruptMode = InterruptMode.SIGNAL

    def new_session(self, session_id: str, **members: Any) -> NewSession:
        """Return a request for a session with this kernel; ``members`` are further members of `NewSession`."""
        request: dict[str, Any] = {
            "session_id": session_id,
            "argv": self.argv,
            "display_name": self.display_name,
            "language": self.language,
            "interrupt_mode": self.interrupt_mode,
            "env": tuple(VarAction(VarActionType.REPLACE, name, value) for name, value in self.env.items()),
        }
        return NewSession(**{**request, **members})


def _folders() -> list[Path]:
    # Only whoever looks for kernels pays for this import.
    from jupyter_core.paths import jupyter_path

    return [Path(folder) for folder in jupyter_path("kernels")]


def _our_python(argv: list[str], folder: Path) -> list[str]:
    """Put this very Python for a bare ``python`` of a kernel that came with it, as jupyter_client does."""
    names = {"python", "python3", f"python3.{sys.version_info.minor}"}
    belongs_to_us = Path(sys.prefix) in folder.parents
    return [sys.executable, *argv[1:]] if argv[0] in names and belongs_to_us else argv


def _read(folder: Path) -> KernelSpec:
    document = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    argv = [str(word).replace("{resource_dir}", str(folder)) for word in document["argv"]]
    if not argv or not isinstance(document["argv"], list):
        raise ValueError("argv must be a list of words")
    return KernelSpec(
        name=folder.name.lower(),
        argv=tuple(_our_python(argv, folder)),
        display_name=str(document.get("display_name", folder.name)),
        language=str(document.get("language", "")),
        resource_dir=str(folder),
        env={str(name): str(value) for name, value in document.get("env", {}).items()},
        interrupt_mode=InterruptMode(document.get("interrupt_mode", "signal")),
    )


def _kernel_folders() -> dict[str, Path]:
    """Return the folder of each kernel; where a name is installed twice, the first place wins."""
    found: dict[str, Path] = {}
    for parent in _folders():
        if parent.is_dir():
            for folder in sorted(parent.iterdir()):
                if (folder / "kernel.json").is_file():
                    found.setdefault(folder.name.lower(), folder)
    return found


def list_kernelspecs() -> dict[str, KernelSpec]:
    """Return the installed kernels by name; one whose kernel.json is broken is left out, with a log line."""
    specs: dict[str, KernelSpec] = {}
    for name, folder in _kernel_folders().items():
        try:
            specs[name] = _read(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is broken: %s", folder / "kernel.json", error)
    return specs


def find_kernelspec(name: str) -> KernelSpec:
    """Return the installed kernel of this name; case does not matter.

    Raises:
        KernelNotFoundError: There is none, or its kernel.json is broken; the message says what to do.
    """
    folders = _kernel_folders()
    folder = folders.get(name.lower())
    if folder is None:
        installed = ", ".join(sorted(folders)) or "none"
        hint = "python -m pip install ipykernel" if name.startswith("python") else "install it where Jupyter looks"
        raise KernelNotFoundError(f"There is no kernel {name!r}; installed: {installed}", f"To get it: {hint}")
    try:
        return _read(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KernelNotFoundError(f"{folder / 'kernel.json'} is broken: {error!r}") from error
