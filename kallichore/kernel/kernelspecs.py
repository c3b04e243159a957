"""The kernels that are installed on this machine, where Jupyter looks for them.

The places are jupyter_core's; the files are kernel.json as the Jupyter docs have it ("Kernel specs"), and what stands
in them is filled in as jupyter_client does. Reading them here spares kcclient all of jupyter_client.

A place that may not be entered (another user's home, a snap's) is passed over: one closed directory must not take away
the kernels of all others.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import stat
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from string import Template
from typing import Any

import attrs

from kallichore.errors import KernelNotFoundError
from kallichore.models.bodies import InterruptMode, KernelProvisioner, NewSession, VarAction, VarActionType
from kallichore.wire.curve_keys import CURVE

logger = logging.getLogger(__name__)

NATIVE_KERNEL = "python3"
"""The name under which Jupyter offers the Python that it runs in, where no kernel of that name is installed."""

LOCAL_PROVISIONER = "local-provisioner"
"""jupyter_client's name for what we do: starting a kernel as a process of this machine."""

_ENCRYPTS_SINCE = (7, 3)
"""The version of ipykernel from which on it says in its kernel.json that it can encrypt."""

_WAYS = (
    ("python", "python -m pip install ipykernel"),
    ("bash", "python -m pip install bash_kernel && python -m bash_kernel.install"),
    ("ir", "Rscript -e 'install.packages(\"IRkernel\"); IRkernel::installspec()'"),
    ("ark", "ark --install"),
    ("julia", "julia -e 'using Pkg; Pkg.add(\"IJulia\")'"),
)
"""How the names of well-known kernels begin, and the commands that install them."""

_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What comes of a kernel.json that cannot be used."""


@attrs.frozen
class KernelSpec:
    """An installed kernel.

    Its ``kernel_protocol_version`` is not among this: ipykernel says 5.5 there and does not register itself (JEP 66),
    so what it says is no ground to start it any other way than with a connection file.

    ``env`` is as it is written; what it says of other variables is filled in where the kernel is to run.
    """

    name: str
    argv: tuple[str, ...]
    display_name: str
    language: str
    resource_dir: str
    env: dict[str, str] = attrs.field(factory=dict)
    interrupt_mode: InterruptMode = InterruptMode.SIGNAL
    supported_encryption: tuple[str, ...] = ()
    """How it can encrypt: ``curve``, or nothing."""
    kernel_provisioner: KernelProvisioner | None = None
    """Who starts it in the server's place; then ``argv`` is as it is written, and may be empty."""
    engine: dict[str, Any] | None = None
    """On which machine it is to run, where that is another one."""

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that it sets, with the values of ``base`` put for ``$NAME`` and ``${NAME}``.

        As jupyter_client does it: ``$$`` is a dollar, an unknown name stays as it is, and one variable of a kernel.json
        does not see another.
        """
        return {name: Template(value).safe_substitute(base) for name, value in self.env.items()}

    def new_session(self, session_id: str, **members: Any) -> NewSession:
        """Return a request for a session with this kernel; ``members`` are further members of `NewSession`."""
        if self.engine is None:
            variables = self.environment(os.environ)
            actions = [VarAction(VarActionType.REPLACE, name, value) for name, value in variables.items()]
        else:
            actions = [_action_elsewhere(name, value) for name, value in self.env.items()]
        request: dict[str, Any] = {
            "session_id": session_id,
            "argv": self.argv,
            "display_name": self.display_name,
            "language": self.language,
            "interrupt_mode": self.interrupt_mode,
            "env": tuple(actions),
            "supported_encryption": self.supported_encryption or None,
            "kernel_provisioner": self.kernel_provisioner,
            "engine": self.engine,
        }
        return NewSession(**{**request, **members})


def _action_elsewhere(name: str, value: str) -> VarAction:
    """Return what a kernel.json says of a variable, for another machine: what it is here does not matter there."""
    for own in (f"${name}", f"${{{name}}}"):
        if value.endswith(own):
            return VarAction(VarActionType.PREPEND, name, value.removesuffix(own))
        if value.startswith(own):
            return VarAction(VarActionType.APPEND, name, value.removeprefix(own))
    return VarAction(VarActionType.REPLACE, name, value)


def _folders() -> list[Path]:
    # Only whoever looks for kernels pays for this import.
    from jupyter_core.paths import jupyter_path

    return [Path(folder) for folder in jupyter_path("kernels")]


def _our_python(argv: list[str], folder: Path) -> list[str]:
    """Put this very Python for a bare ``python`` of a kernel that came with it, as jupyter_client does."""
    names = {"python", "python3", f"python3.{sys.version_info.minor}"}
    belongs_to_us = Path(sys.prefix) in folder.parents
    return [sys.executable, *argv[1:]] if argv[0] in names and belongs_to_us else argv


def _fill_in(word: str, values: Mapping[str, str]) -> str:
    """Return a word of a command line with the values of its placeholders; unknown ones stay for others to fill in."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), word)


def _read(folder: Path) -> KernelSpec:
    return _from_document(json.loads((folder / "kernel.json").read_text(encoding="utf-8")), folder)


def _from_document(document: dict[str, Any], folder: Path) -> KernelSpec:
    values = {"resource_dir": str(folder), "prefix": sys.prefix}
    name = folder.name.lower()
    provisioner, engine = _provisioner(name, document, folder), _engine(document)
    written = document["argv"]
    if not isinstance(written, list) or not (written or provisioner):
        raise ValueError("argv must be a list of words")
    argv = [str(word) if provisioner else _fill_in(str(word), values) for word in written]
    return KernelSpec(
        name=name,
        argv=tuple(argv if provisioner or engine else _our_python(argv, folder)),
        display_name=str(document.get("display_name", folder.name)),
        language=str(document.get("language", "")),
        resource_dir=str(folder),
        env={str(name): str(value) for name, value in document.get("env", {}).items()},
        interrupt_mode=InterruptMode(document.get("interrupt_mode", "signal")),
        supported_encryption=_supported_encryption(document),
        kernel_provisioner=provisioner,
        engine=engine,
    )


def _engine(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return where a kernel is to run, as ``metadata.kallichore.engine`` says; None for this machine."""
    ours = (document.get("metadata") or {}).get("kallichore") or {}
    engine = ours.get("engine") if isinstance(ours, dict) else ours
    if engine is not None and not isinstance(engine, dict):
        raise ValueError('metadata.kallichore.engine must be an object, such as {"profile": "big"}')
    return engine


def _supported_encryption(document: dict[str, Any]) -> tuple[str, ...]:
    """Return how a kernel says that it can encrypt: as one word or a list of them, in any case (JEP 145)."""
    told = (document.get("metadata") or {}).get("supported_encryption")
    words = [told] if isinstance(told, str) else told if isinstance(told, list) else []
    return tuple(str(word).strip().lower() for word in words)


def _provisioner(name: str, document: dict[str, Any], folder: Path) -> KernelProvisioner | None:
    """Return who is to start a kernel in our place: in a container, on a cluster; None if it is ours to start.

    jupyter_client's local provisioner without settings does what we do.
    """
    metadata = document.get("metadata") or {}
    wanted = metadata.get("kernel_provisioner") or {}
    provisioner_name, config = wanted.get("provisioner_name") or LOCAL_PROVISIONER, wanted.get("config") or {}
    if not isinstance(provisioner_name, str) or not isinstance(config, dict):
        raise ValueError("metadata.kernel_provisioner must have a provisioner_name and a config: text, and an object")
    if provisioner_name == LOCAL_PROVISIONER and not config:
        return None
    return KernelProvisioner(
        provisioner_name=provisioner_name,
        config=config,
        kernel_name=name,
        resource_dir=str(folder),
        metadata={each: value for each, value in metadata.items() if each != "kernel_provisioner"},
    )


def _native_kernel() -> KernelSpec | None:
    """Return ipykernel in this very Python, as Jupyter offers it; None if it is not installed."""
    found = importlib.util.find_spec("ipykernel")
    if found is None or not found.submodule_search_locations:
        return None
    return KernelSpec(
        name=NATIVE_KERNEL,
        argv=(sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"),
        display_name=f"Python {sys.version_info.major} (ipykernel)",
        language="python",
        resource_dir=str(Path(found.submodule_search_locations[0]) / "resources"),
        supported_encryption=(CURVE,) if _version_of("ipykernel") >= _ENCRYPTS_SINCE else (),
    )


def _version_of(package: str) -> tuple[int, ...]:
    """Return the first two numbers of an installed package's version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = re.match(r"(\d+)\.(\d+)", version(package))
    except PackageNotFoundError:
        return (0, 0)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _folders_in(parent: Path) -> list[Path]:
    """Return the folders of kernels in a place where Jupyter looks; none if it is not there, or closed."""
    try:
        folders = sorted(parent.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        logger.debug("Kernels in %s are passed over: %s", parent, error.strerror)
        return []
    return [folder for folder in folders if _has_kernel(folder)]


def _has_kernel(folder: Path) -> bool:
    try:
        return stat.S_ISREG((folder / "kernel.json").stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        logger.debug("The kernel in %s is passed over: %s", folder, error.strerror)
        return False


def _kernel_folders() -> dict[str, Path]:
    """Return the folder of each kernel; where a name is installed twice, the first place wins."""
    found: dict[str, Path] = {}
    for parent in _folders():
        for folder in _folders_in(parent):
            found.setdefault(folder.name.lower(), folder)
    return found


def list_kernelspecs() -> dict[str, KernelSpec]:
    """Return the installed kernels by name; one that cannot be used is left out, with a log line."""
    specs: dict[str, KernelSpec] = {}
    folders = _kernel_folders()
    for name, folder in folders.items():
        try:
            specs[name] = _read(folder)
        except _BROKEN as error:
            logger.warning("%s is broken: %s", folder / "kernel.json", error)
    if NATIVE_KERNEL not in folders and (native := _native_kernel()) is not None:
        specs[NATIVE_KERNEL] = native
    return specs


def _way_to(name: str) -> str:
    """Return the command that installs a kernel, as far as its name tells which one that is."""
    known = (command for begin, command in _WAYS if name.lower().startswith(begin))
    return next(known, "jupyter kernelspec install --user FOLDER, the one with its kernel.json")


def default_kernel(names: Collection[str]) -> str | None:
    """Return the kernel that is meant where none is named: Python's, or the first by name."""
    return NATIVE_KERNEL if NATIVE_KERNEL in names else min(names, default=None)


def find_kernelspec(name: str) -> KernelSpec:
    """Return the installed kernel of this name; case does not matter.

    Raises:
        KernelNotFoundError: There is none, or its kernel.json is broken; the message says what to do.
    """
    folders = _kernel_folders()
    folder = folders.get(name.lower())
    if folder is None:
        native = _native_kernel()
        if native is not None and name.lower() == NATIVE_KERNEL:
            return native
        installed = ", ".join(sorted({*folders, *([NATIVE_KERNEL] if native else [])})) or "none"
        raise KernelNotFoundError(f"There is no kernel {name!r}; installed: {installed}", f"To get it: {_way_to(name)}")
    try:
        return _read(folder)
    except _BROKEN as error:
        raise KernelNotFoundError(f"{folder / 'kernel.json'} is broken: {error!r}") from error
