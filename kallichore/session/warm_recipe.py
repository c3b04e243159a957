"""What a kernel's process is started like: only one that was started the same way may take its place. [pure]

The command, the environment, the directory and the connection have to be the same. Of the environment, a few variables
only tell a kernel for whom it works (`is_told_later`): nothing depends on them before code runs, so that a kernel of
Python can still be told when it is taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import attrs

from kallichore.kernel.connection_choice import ConnectionChoice
from kallichore.kernel.launch_plan import CONNECTION_FILE, LaunchPlan, uses_handshake
from kallichore.models.bodies import NewSession

MakePlan = Callable[[str], LaunchPlan]
"""Plans a launch for a connection file of this path; raises `StartupError`."""

_DOCUMENT = "JPY_SESSION_NAME"
_GATEWAY = "KERNEL_"


def is_told_later(variable: str) -> bool:
    """Whether a variable only says for whom a kernel works: which document it is of, and what a Jupyter server's
    front end adds (``KERNEL_...``).
    """
    return variable == _DOCUMENT or variable.startswith(_GATEWAY)


@attrs.frozen
class Recipe:
    """How one kernel's process is started. Made by `make_recipe`; two are equal if one process may stand for the other.

    Attributes:
        command: A digest of the command and the connection: two that agree in it are the same kernel, somewhere else
            or with other variables.
        rest: A digest of the environment, without what is told later, and of the directory.
        told: The variables that can be told later.
        directory: Where the process is started.
        request: The session that it is for, or that is like it.
        plan: The launch, with a placeholder for the connection file.
        make_plan: Plans it for a connection file.
    """

    command: str
    rest: str
    told: Mapping[str, str]
    directory: str = attrs.field(eq=False)
    request: NewSession = attrs.field(eq=False, repr=False)
    plan: LaunchPlan = attrs.field(eq=False, repr=False)
    make_plan: MakePlan = attrs.field(eq=False, repr=False)
    drops_told: bool = attrs.field(default=False, eq=False)

    def for_anybody(self) -> Recipe:
        """Return the same without what tells a kernel for whom it works."""
        return attrs.evolve(self, told={}, drops_told=True)

    def plan_at(self, connection_file: str) -> LaunchPlan:
        """Return the launch for a connection file.

        Raises:
            StartupError: There is no such launch any more.
        """
        plan = self.make_plan(connection_file)
        if not self.drops_told:
            return plan
        kept = {name: value for name, value in plan.environment.items() if not is_told_later(name)}
        return attrs.evolve(plan, environment=kept)


def make_recipe(request: NewSession, choice: ConnectionChoice, make_plan: MakePlan, server_directory: str) -> Recipe:
    """Return how a session's next kernel is started.

    Args:
        request: What the session was created with.
        choice: How its kernels are connected.
        make_plan: Plans their launch.
        server_directory: Where the server is, and so a kernel that has no directory of its own.

    Raises:
        StartupError: There is nothing to launch.
    """
    plan = make_plan(CONNECTION_FILE)
    told = {name: value for name, value in plan.environment.items() if is_told_later(name)}
    others = sorted((name, value) for name, value in plan.environment.items() if name not in told)
    directory = plan.working_directory or server_directory
    registers = uses_handshake(request.protocol_version)
    return Recipe(
        command=_digest(plan.argv, registers, choice.transport, choice.encrypts),
        rest=_digest(others, directory, plan.handles),
        told=told,
        directory=directory,
        request=request,
        plan=plan,
        make_plan=make_plan,
    )


def _digest(*parts: Any) -> str:
    # Not the values themselves: there are secrets in environments.
    return blake2b(json.dumps(parts).encode("utf-8", "replace"), digest_size=16).hexdigest()


def telling_code(told: Mapping[str, str]) -> str:
    """Return code that tells a kernel of Python for whom it works, and leaves nothing else behind.

    ipykernel has the document as ``__session__`` too, where it was started with it.

    Args:
        told: The variables.
    """
    lines = [f"__import__('os').environ.update({dict(told)!r})"]
    if document := told.get(_DOCUMENT):
        lines.append(f"__session__ = {document!r}")
    return "\n".join(lines)
