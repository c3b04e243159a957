"""What a kernel is at work on, by its own word: the requests of its main shell that it has begun and not ended.

Each request has a ``busy`` and an ``idle`` of its own (messaging spec, "Kernel status"). Those of control and of
subshells (JEP 91) are served beside the main shell and say nothing about it, so they are left out here: a session is
idle when nothing of its main shell runs.

Not every kernel says all of it, or says whose it is:

- Only an execution can have other requests inside it, from code that serves comm messages while it waits. Anything else
  is over when the next request begins, and what began inside a request is over with it.
- What was replied to is over `GRACE` later, or at the next idle that names a request which is not open.
- Statuses without a parent are counted, so that one in the middle of an execution does not end it.
"""

from __future__ import annotations

import attrs
import msgspec

GRACE = 0.5
"""Seconds after its reply at which a request whose idle did not come counts as over. Kernels send both together; some
send no idle, or one that names another request."""

EXECUTION = "execute_request"

_NAMELESS = ""
"""The id of what a kernel does without saying what it is, while it executes nothing."""

NEVER = float("-inf")
"""The time of what has not been."""


class SavedActivity(msgspec.Struct, omit_defaults=True):
    """An activity as JSON, in which the members of objects have an order. It has no infinities: nothing in the place
    of a time is `NEVER`, or no time.
    """

    since: float | None = None
    at_rest_since: float | None = None
    open: dict[str, str] = {}
    depth: dict[str, int] = {}
    replied: dict[str, float] = {}
    latest: str | None = None


def moved(time: float | None, shift: float) -> float | None:
    """Return a time as another process's clock has it, which is ``shift`` seconds on; None stays None."""
    return None if time is None else time + shift


@attrs.define
class Activity:
    """The open requests of one kernel's main shell; times are seconds of the caller's clock."""

    since: float | None = attrs.field(default=None, init=False)
    """Since when there is any; None while there is none."""
    at_rest_since: float | None = attrs.field(default=NEVER, init=False)
    """Since when there is none; None while there is any."""
    changes: int = attrs.field(default=0, init=False)
    """How often it may have changed: who saves it need not look at all of it."""
    _open: dict[str, str] = attrs.field(factory=dict, init=False)
    """What has begun, by ``msg_id``, with its type, in the order of its beginning."""
    _depth: dict[str, int] = attrs.field(factory=dict, init=False)
    """How many idles without a name each takes: one for its own busy, and one for each nameless busy within it."""
    _replied: dict[str, float] = attrs.field(factory=dict, init=False)
    """What was replied to and did not end, and when. A reply may come before the busy, over another socket."""
    _latest: str | None = attrs.field(default=None, init=False)
    """What ended last: its reply may come behind its idle."""

    def __contains__(self, msg_id: str) -> bool:
        """Whether a request has begun and not ended."""
        return msg_id in self._open

    @property
    def look_at(self) -> float | None:
        """When something will be over without an idle; None if nothing will."""
        # They are in the order of their time.
        return next(iter(self._replied.values())) + GRACE if self._replied else None

    def clear(self) -> None:
        """Forget everything: the kernel is another one."""
        self.changes += 1
        for known in (self._open, self._depth, self._replied):
            known.clear()
        self.since, self.at_rest_since, self._latest = None, NEVER, None

    def begin(self, msg_id: str, msg_type: str, now: float) -> None:
        """Note the ``busy`` of a request."""
        self.changes += 1
        if self._open:
            self._close([known for known, kind in self._open.items() if kind != EXECUTION and known != msg_id], now)
        self._open[msg_id] = msg_type
        self._depth.setdefault(msg_id, 1)
        if self.since is None:
            self.since, self.at_rest_since = now, None

    def begin_nameless(self, active: str | None, now: float) -> None:
        """Note a ``busy`` without a parent; ``active`` is the execution that the kernel has, if it has one."""
        msg_id = _NAMELESS if active is None else active
        self._depth[msg_id] = self._depth.get(msg_id, 0) + 1
        self.begin(msg_id, "" if active is None else EXECUTION, now)

    def end(self, msg_id: str, now: float) -> None:
        """Note the ``idle`` of a request."""
        self._latest = msg_id
        if msg_id in self._open:
            began = list(self._open)
            self._close(began[began.index(msg_id) :], now)
        else:
            # It may be meant for what was replied to: some kernels name the wrong one.
            self._close(list(self._replied), now)

    def end_nameless(self, active: str | None, now: float) -> bool:
        """Note an ``idle`` without a parent; True if that is the end of the execution that the kernel has."""
        msg_id = _NAMELESS if active is None or (active not in self._open and _NAMELESS in self._open) else active
        depth = self._depth.get(msg_id, 0) - 1
        if depth > 0:
            self.changes += 1
            self._depth[msg_id] = depth
            return False
        self.end(msg_id, now)
        return msg_id == active

    def reply(self, msg_id: str, now: float) -> None:
        """Note the reply to a request: its idle is due, unless it has come already."""
        if msg_id != self._latest:
            self.changes += 1
            self._replied.setdefault(msg_id, now)

    def expire(self, now: float) -> bool:
        """Close what was replied to `GRACE` ago; True if any of it was open."""
        due = [msg_id for msg_id, replied in self._replied.items() if now >= replied + GRACE]
        was_open = any(msg_id in self._open for msg_id in due)
        self._close(due, now)
        return was_open

    def postpone(self, now: float) -> None:
        """Let what was replied to stay open for another `GRACE`: its output still comes, and so its idle may."""
        self.changes += 1
        self._replied = dict.fromkeys(self._replied, now)

    def _close(self, msg_ids: list[str], now: float) -> None:
        self.changes += 1
        for msg_id in msg_ids:
            self._open.pop(msg_id, None)
            self._depth.pop(msg_id, None)
            self._replied.pop(msg_id, None)
        if not self._open and self.since is not None:
            self.since, self.at_rest_since = None, now

    # For another process

    def save(self) -> SavedActivity:
        """Return what it is, for `load`."""
        return SavedActivity(self.since, self.at_rest_since, self._open, self._depth, self._replied, self._latest)

    def load(self, saved: SavedActivity, shift: float) -> None:
        """Become what was saved; times move by ``shift`` seconds."""
        self.since, self.at_rest_since = moved(saved.since, shift), moved(saved.at_rest_since, shift)
        if self.since is None and self.at_rest_since is None:
            self.at_rest_since = NEVER
        self.changes += 1
        self._open, self._depth = saved.open, saved.depth
        self._replied = {msg_id: replied + shift for msg_id, replied in saved.replied.items()}
        self._latest = saved.latest
