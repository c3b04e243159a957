"""What both sides of Jupyter's API know of its bodies."""

from __future__ import annotations

import re

import attrs

UUID_SHAPED = re.compile(r"\w+-\w+-\w+-\w+-\w+", re.ASCII)
"""What ids look like: gateways route no others."""


@attrs.frozen
class KernelModel:
    """A kernel, as it is listed."""

    id: str
    name: str
    last_activity: str
    execution_state: str
    connections: int
