"""Ids and tokens of workspaces: those that a window brings along are kept if they are well-formed. [pure]"""

from __future__ import annotations

import re

LONGEST_ID = 40
LONGEST_SLUG = 24

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_TOKEN = re.compile(r"[0-9a-f]{64}")
_NOT_FOR_A_SLUG = re.compile(r"[^a-z0-9]+")


def is_workspace_id(text: str) -> bool:
    """Tell whether this can be a workspace's id."""
    return len(text) <= LONGEST_ID and _ID.fullmatch(text) is not None


def is_token(text: str) -> bool:
    """Tell whether this can be a workspace's token: 32 bytes in hexadecimal digits."""
    return _TOKEN.fullmatch(text) is not None


def make_workspace_id(display_name: str, random: str) -> str:
    """Return an id for a workspace that has none.

    Args:
        display_name: What people call it.
        random: Six random characters.
    """
    slug = _NOT_FOR_A_SLUG.sub("-", display_name.lower()).strip("-")[:LONGEST_SLUG].strip("-")
    return f"{slug or 'workspace'}-{random}"
