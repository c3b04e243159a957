"""The names of a kernel's five channels, which are also the API's.

Which kind of ZeroMQ socket belongs to each is `kallichore.zeromq`'s business.
"""

from __future__ import annotations

from enum import StrEnum


class Channel(StrEnum):
    """A kernel's channel (messaging spec, "Introduction")."""

    SHELL = "shell"
    CONTROL = "control"
    STDIN = "stdin"
    IOPUB = "iopub"
    HEARTBEAT = "heartbeat"


FROM_KERNEL = (Channel.SHELL, Channel.IOPUB, Channel.STDIN, Channel.CONTROL)
"""Channels whose messages reach clients."""

TO_KERNEL = frozenset({Channel.SHELL, Channel.CONTROL, Channel.STDIN})
"""Channels on which a client can send."""

KNOWN_TO_CLIENTS = frozenset({*Channel, "registration"})
"""Channel names that a client may write; those outside `TO_KERNEL` are understood and dropped."""

NUMBERS = {Channel.SHELL: 0, Channel.IOPUB: 1, Channel.STDIN: 2, Channel.CONTROL: 3, Channel.HEARTBEAT: 4}
"""What stands for each on the stream to a kernel's host."""

OUTPUTS = {"stdout": 5, "stderr": 6}
"""The same for what the kernel's process prints."""
