"""Who may import whom: the rooms' direction, and the modules without any input or output.

The imports are read from the source, so those under ``TYPE_CHECKING`` and inside functions count like the others.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kallichore"

CHAIN = (
    *("wire", "models", "zeromq", "kernel", "conversation", "session"),
    *("attach", "server", "api", "jupyter", "mcp", "dashboard", "embed", "cli"),
)
"""The rooms that lead from Jupyter's protocol to the command lines; each may import those before it."""

TRANSPORT_USERS = {"client", "engines", "attach", "server", "api", "jupyter", "mcp", "dashboard", "embed", "cli"}
"""Who may import transport. It knows nothing of kernels, so that it can be used from attach on, by clients,
and where hosts dial in."""

STATE_USERS = {"session", "server", "embed", "cli"}
"""Who may import state: who keeps sessions, who begins and ends a server, and who shows what is kept."""

FOR_ALL = {"errors", "config", "_version"}
"""What any room may import."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "_version": set(),
    "__main__": {"cli"},
    "config": {"errors"},
    "transport": FOR_ALL,
    # What outlives a server knows neither who runs nor who listens.
    "state": {"wire", "models", *FOR_ALL},
    # What agents are offered, for both sides.
    "agents": {"models", "conversation", *FOR_ALL},
    # Programs of their own, see `kallichore.host`.
    "host": set(),
    # Where kernels are placed, and what talks to their hosts.
    "engines": {"wire", "models", "kernel", "host", *FOR_ALL},
    # The API from outside shares its words with the server, not its code.
    "client": {"wire", "models", *FOR_ALL},
    **{room: {*CHAIN[:place], *FOR_ALL} for place, room in enumerate(CHAIN)},
}
for _room in TRANSPORT_USERS:
    MAY_IMPORT[_room] = {*MAY_IMPORT[_room], "transport"}
for _room in STATE_USERS:
    MAY_IMPORT[_room] = {*MAY_IMPORT[_room], "state"}
# Who runs a kernel says where it is placed; a server lends engines what they need, and a command line reads profiles.
for _room in ("session", "server", "cli"):
    MAY_IMPORT[_room] = {*MAY_IMPORT[_room], "engines"}
MAY_IMPORT["cli"] = {*MAY_IMPORT["cli"], "client", "agents"}
# Neighbours: all stand on the server, or on nothing of ours.
MAY_IMPORT["jupyter"] -= {"api"}
MAY_IMPORT["mcp"] = {*MAY_IMPORT["mcp"], "agents"} - {"api", "jupyter"}
MAY_IMPORT["dashboard"] -= {"api", "jupyter", "mcp"}

PURE_ROOMS = {"wire", "models", "conversation", "errors", "config"}
"""Rooms of which every module is pure; in the others a module says so by [pure] at the start of its docstring."""

PURE_MODULES = {
    "kallichore.engines.complaints",
    "kallichore.engines.host_program",
    "kallichore.engines.kubernetes_account",
    "kallichore.engines.kubernetes_options",
    "kallichore.engines.kubernetes_words",
    "kallichore.engines.provisioner_words",
    "kallichore.engines.ssh_errands",
    "kallichore.engines.ssh_options",
    "kallichore.engines.ssh_words",
    "kallichore.host",
    "kallichore.kernel.connection_choice",
    "kallichore.kernel.environment",
    "kallichore.kernel.launch_plan",
    "kallichore.kernel.output",
    "kallichore.kernel.program_path",
    "kallichore.kernel.shell_wrapper",
    "kallichore.kernel.windows_codes",
    "kallichore.state.records",
    "kallichore.state.replay",
    "kallichore.transport.auth",
    "kallichore.transport.places",
}
"""Modules that must stay pure: losing the mark is a change of design."""

IMPURE = {
    *("trio", "trio_util", "trio_websocket", "asyncio", "threading", "multiprocessing", "signal"),
    *("zmq", "quart", "quart_trio", "hypercorn", "socket", "ssl", "selectors"),
    *("psutil", "subprocess", "os", "shutil", "tempfile", "time", "logging.handlers"),
}
"""What has to do with waiting, the network, processes, files or the clock."""


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def _modules() -> dict[str, ast.Module]:
    """Return all modules by name, read when the first test wants them: each worker that collects tests imports this."""
    return {_module_name(path): ast.parse(path.read_bytes()) for path in sorted(PACKAGE.rglob("*.py"))}


def _imports_of(tree: ast.Module) -> set[str]:
    """Return the full names that a module imports: modules, and names in modules."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _own_imports_of(module: str) -> set[str]:
    """Return the modules of ours that a module imports."""
    own = {name for name in _imports_of(_modules()[module]) if name.split(".")[0] == "kallichore"}
    return {name if name in _modules() else name.rpartition(".")[0] for name in own}


def _room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _is_pure(module: str) -> bool:
    opening = (ast.get_docstring(_modules()[module]) or "").split("\n\n")[0]
    return _room_of(module) in PURE_ROOMS or "[pure]" in opening


def test_rooms_import_only_what_is_left_of_them() -> None:
    """A room imports only itself, the rooms before it, and what is there for all."""
    wrong = [
        f"{module} imports {name}"
        for module in _modules()
        if module != "kallichore"
        for name in _own_imports_of(module)
        if name != "kallichore" and _room_of(name) not in {_room_of(module), *MAY_IMPORT.get(_room_of(module), ())}
    ]

    assert wrong == []


def test_public_package_is_imported_by_no_room() -> None:
    """The names that kallichore/__init__.py gathers are for others; inside, a module is imported where it lives."""
    assert [module for module in _modules() if "kallichore" in _own_imports_of(module)] == []


@pytest.mark.parametrize("name", ["dial", "errands", "host", "relay"])
def test_program_beside_a_kernel_stands_alone(name: str) -> None:
    """What travels to where a kernel is is imported by nobody, and imports what comes with Python and nothing else."""
    program = f"kallichore.host.{name}"
    wanted = {name.split(".")[0] for name in _imports_of(_modules()[program])}

    assert [] == [module for module in _modules() if program in _own_imports_of(module)]
    assert set() == wanted - sys.stdlib_module_names


def test_every_module_is_in_a_known_room() -> None:
    """There is no module outside of the rooms, and no room without a module."""
    assert {_room_of(module) for module in _modules()} - {""} == set(MAY_IMPORT)


def test_what_is_imported_exists() -> None:
    """Every module of ours that is imported is there, also those for another system, which no test here imports."""
    missing = [f"{module} imports {name}" for module in _modules() for name in _own_imports_of(module) - {*_modules()}]

    assert missing == []


def test_pure_modules_import_nothing_that_waits_or_touches_the_world() -> None:
    """A pure module imports no concurrency, network, process, file or clock."""
    wrong = [
        f"{module} imports {name}"
        for module in filter(_is_pure, _modules())
        for name in _imports_of(_modules()[module])
        if name in IMPURE or name.split(".")[0] in IMPURE
    ]

    assert wrong == []


def test_pure_modules_import_only_pure_modules_of_ours() -> None:
    """What a pure module takes from us is pure too."""
    wrong = [
        f"{module} imports {name}"
        for module in filter(_is_pure, _modules())
        for name in _own_imports_of(module)
        if not _is_pure(name)
    ]

    assert wrong == []


def test_http_rooms_take_only_decisions_from_transport() -> None:
    """The HTTP app asks transport who is let in, and knows nothing of listeners."""
    wrong = [
        f"{module} imports {name}"
        for module in _modules()
        if _room_of(module) == "api"
        for name in _own_imports_of(module)
        if _room_of(name) == "transport" and not _is_pure(name)
    ]

    assert wrong == []


@pytest.mark.parametrize("module", sorted(PURE_MODULES))
def test_module_that_must_be_pure_says_so(module: str) -> None:
    """A module that the design wants pure exists and carries the mark."""
    assert _is_pure(module)


def test_every_module_has_a_docstring() -> None:
    """A module says why it exists."""
    assert [module for module, tree in _modules().items() if not ast.get_docstring(tree)] == []
