"""The kernelspecs of which a server keeps kernels ready: read when it starts, and again when a file has changed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import attrs

from kallichore.errors import ConfigurationError, KernelNotFoundError, StartupError
from kallichore.kernel.connection_choice import choose_connection
from kallichore.kernel.kernelspecs import KernelSpec, find_kernelspec
from kallichore.kernel.launch_plan import LaunchPlan, make_launch_plan
from kallichore.kernel.working_directory import current_directory
from kallichore.session.facilities import Facilities
from kallichore.session.meeting import can_encrypt
from kallichore.session.warm_recipe import Recipe, make_recipe
from kallichore.session.warm_stock import Owner

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class WarmKernelspec:
    """A kernelspec of which kernels are kept ready. Made by `read_kernelspecs`.

    Attributes:
        name: Its name.
        count: How many there are to be.
        recipe: What they are started like, as long as nobody starts them in another way.
    """

    name: str
    count: int
    recipe: Recipe
    _spec: KernelSpec
    _date: tuple[int, ...] | None

    @property
    def owner(self) -> Owner:
        """For whom its kernels are."""
        return Owner(kernel=self.name)

    def look_again(self, facilities: Facilities) -> bool:
        """Read it again if its file has changed; True if its kernels have to be started in another way now."""
        if (date := _date(self._spec)) == self._date:
            return False
        self._date = date
        try:
            spec = find_kernelspec(self.name)
            recipe = _recipe(spec, facilities)
        except (KernelNotFoundError, StartupError) as error:
            logger.warning("Kernel %s is kept ready as it was before: %s", self.name, error)
            return False
        has_changed = recipe != self.recipe
        self._spec, self._date, self.recipe = spec, _date(spec), recipe
        return has_changed


def read_kernelspecs(facilities: Facilities) -> Sequence[WarmKernelspec]:
    """Read the kernelspecs that a server's settings name.

    Raises:
        ConfigurationError: One is not installed, or its kernels cannot be started as the settings have it.
    """
    return [_read(name, count, facilities) for name, count in facilities.config.warm.items() if count]


def _read(name: str, count: int, facilities: Facilities) -> WarmKernelspec:
    try:
        spec = find_kernelspec(name)
        return WarmKernelspec(spec.name, count, _recipe(spec, facilities), spec, _date(spec))
    except (KernelNotFoundError, StartupError) as error:
        details = f". {error.details}" if error.details else ""
        raise ConfigurationError(f"No kernel of {name} can be kept ready (warm). {error.message}{details}") from error


def _date(spec: KernelSpec) -> tuple[int, ...] | None:
    """Return by what it shows that its file is another one; None if it has none, as the Python we run in."""
    try:
        status = (Path(spec.resource_dir) / "kernel.json").stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _recipe(spec: KernelSpec, facilities: Facilities) -> Recipe:
    config = facilities.config
    request = spec.new_session(f"warm {spec.name}")
    # As a kernel of Jupyter's API is started that is of no document.
    directory = os.path.realpath(config.root_directory or current_directory())
    plan = partial(
        make_launch_plan,
        request,
        actions=request.env,
        working_directory=directory,
        surroundings=facilities.surroundings,
    )

    def make_plan(connection_file: str) -> LaunchPlan:
        return plan(connection_file=connection_file)

    choice = choose_connection(request, config, sys.platform, can_encrypt)
    return make_recipe(request, choice, make_plan, current_directory()).for_anybody()
