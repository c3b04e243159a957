"""Named sets of options for kernels on other machines, as they stand in a configuration file. [pure]

A file has a table for each: ``[profiles.big]`` with ``kind = "slurm"`` and what that engine understands. What an option
means and may be is the engine's affair, and is checked when a session asks for it, or ``kcclient engines`` does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from kallichore.errors import ConfigurationError


def read_profiles(text: str, name: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the profiles in a configuration file.

    Args:
        text: The file, which is TOML.
        name: What people call it.

    Raises:
        ConfigurationError: It is no TOML, or has something else in it than profiles.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is no TOML: {error}") from error
    profiles = document.pop("profiles", {})
    if document:
        raise ConfigurationError(f"{name} has {', '.join(map(repr, document))}; it can have tables [profiles.NAME]")
    if not isinstance(profiles, dict):
        raise ConfigurationError(f"profiles in {name} is {profiles!r}; it has to be tables [profiles.NAME]")
    for profile, options in profiles.items():
        if not isinstance(options, dict):
            raise ConfigurationError(f"profiles.{profile} in {name} is {options!r}; it has to be a table")
        if not isinstance(options.get("kind"), str):
            raise ConfigurationError(f'profiles.{profile} in {name} has no kind; add one, such as kind = "slurm"')
    return profiles
