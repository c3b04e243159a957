"""Samples of what the kernels use, for those that somebody watches.

The sampler itself is `kallichore.kernel.resources`; here is when it is asked, and for whom. Nothing is sampled for
nobody: a session counts as watched while a client is connected, for a minute after it was asked for over HTTP, and
while somebody follows all sessions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import count

import trio_util

from kallichore.kernel.resources import ResourceSampler
from kallichore.models.bodies import ResourceUsage
from kallichore.session.session import Session

QUIET_EVERY = 5
"""Intervals between two samples of a kernel that has nothing to do, where somebody only looks at all sessions together:
of a hundred of them, most are such, and a look at each would be half of what that costs. And of one on another machine,
whoever looks and whatever it does: there, a look is a question and an answer, which wake four processes."""


async def sample_resources(
    interval_ms: trio_util.AsyncValue[int],
    include_children: Callable[[], bool],
    sessions: Callable[[], Iterable[Session]],
) -> None:
    """Sample the watched kernels once an interval, for ever; ticks that are late are not made up for.

    Args:
        interval_ms: The interval, in milliseconds; 0 for no samples. A change begins a new interval.
        include_children: Whether a kernel's child processes count.
        sessions: The sessions of now.
    """
    while True:
        period = await interval_ms.wait_value(lambda value: value > 0)
        # Not wait_transition: a second change right behind the first would come before anybody waits for it.
        async with trio_util.move_on_when(interval_ms.wait_value, lambda value, period=period: value != period):
            await _sample_regularly(period, include_children, sessions)


async def _sample_regularly(
    period: int, include_children: Callable[[], bool], sessions: Callable[[], Iterable[Session]]
) -> None:
    sampler = ResourceSampler()
    ticks = count()
    async for _ in trio_util.periodic(period / 1000):
        # One tick for all: they share the look at the clock, and what the sampler reads once.
        tick, timestamp = next(ticks), int(time.time() * 1000)
        watched = [session for session in sessions() if session.wants_samples]
        sampler.forget_others(session.process_id or 0 for session in watched if session.process_elsewhere is None)
        for at, session in enumerate(watched):
            assert session.process_id is not None
            is_rare = session.wants_few_samples and session.conversation.resource_usage is not None
            if is_rare and (tick + at) % QUIET_EVERY:
                continue
            if (elsewhere := session.process_elsewhere) is not None:
                usage = elsewhere.sample()
            else:
                usage = sampler.sample(session.process_id, include_children=include_children())
            if usage is not None:
                session.note_usage(
                    ResourceUsage(
                        cpu_percent=usage.cpu_percent,
                        memory_bytes=usage.memory_bytes,
                        thread_count=usage.thread_count,
                        sampling_period_ms=period * (QUIET_EVERY if is_rare else 1),
                        timestamp=timestamp,
                    )
                )
                session.note_memory(usage.memory_warning)
