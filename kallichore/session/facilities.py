"""What a server lends to each of its sessions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from kallichore.config import ServerConfig
from kallichore.engines.registry import Engines
from kallichore.kernel.inheritance import OpenInheritance
from kallichore.kernel.launch_plan import Surroundings
from kallichore.kernel.watchdog import Watchdog
from kallichore.models.bodies import NewSession
from kallichore.session.intake import Intake
from kallichore.session.news import News
from kallichore.session.warm_pool import WarmPool
from kallichore.zeromq.registration import RegistrationDesk

if TYPE_CHECKING:
    from kallichore.engines.provisioner import Provisioners


def _nothing(request: NewSession) -> Mapping[str, str]:
    return {}


@attrs.define(eq=False)
class Additions:
    """What a server adds to the environment of its kernels.

    Attributes:
        of: Returns what a session's next kernel gets, for what the session was created with. The session's own list of
            variables comes after it.
    """

    of: Callable[[NewSession], Mapping[str, str]] = _nothing


@attrs.frozen(kw_only=True)
class Facilities:
    """The server's things that a kernel's life needs. They outlive every session."""

    config: ServerConfig
    desk: RegistrationDesk
    """Where kernels register."""
    runtime_directory: Path
    """A directory for this server alone; gone when it ends."""
    watchdog: Watchdog
    """Ends the kernels of a server that was killed."""
    surroundings: Surroundings
    """The machine, as launch plans ask about it."""
    open_inheritance: OpenInheritance | None
    """Makes what a session's kernels inherit; None off Windows."""
    intake: Intake = attrs.field(factory=Intake)
    """Counts what clients are sending."""
    additions: Additions = attrs.field(factory=Additions)
    engines: Engines
    """Place kernels on other machines."""
    news: News = attrs.field(factory=News)
    """Tells who follows all sessions which of them changed."""
    warm: WarmPool = attrs.field(factory=WarmPool)
    """Kernels that are ready before anybody asks for them."""
    provisioners: Callable[[], Provisioners] | None = None
    """Returns what launches kernels in this server's place; None where no kernels are launched."""
    taken_ports: set[int]
    """Ports that were promised to kernels; see `kallichore.kernel.ports`."""


def utc_date() -> str:
    """Return now as message headers have it: UTC, ISO 8601, milliseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1_000_000:03}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    """Return the date of a second, which many messages have: it takes three times as long as all else of theirs."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


def new_msg_id() -> str:
    """Return an id for a message of the server's own: ten hexadecimal digits."""
    return secrets.token_hex(5)
