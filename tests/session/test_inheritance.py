"""What kernels on Windows inherit, over a double of the handles: variables, interrupts, and their end."""

from __future__ import annotations

import attrs
import trio

from kallichore.models.bodies import InterruptMode, VarAction, VarActionType
from kallichore.server import open_server
from kernels import REAL_TIME, scripted


@attrs.define
class MemoryHandles:
    """Handles that only remember what was done to them."""

    by_event: bool
    environment: dict[str, str] = attrs.field(init=False)
    handles: tuple[int, ...] = (4, 8)
    interrupts: int = 0
    closed: bool = False

    def __attrs_post_init__(self) -> None:
        self.environment = {"JPY_PARENT_PID": "4", **({"JPY_INTERRUPT_EVENT": "8"} if self.by_event else {})}

    def interrupt(self) -> None:
        """Count an interrupt."""
        self.interrupts += 1

    def close(self) -> None:
        """Note the end."""
        self.closed = True


async def test_kernel_inherits_the_handles_and_is_interrupted_by_its_event() -> None:
    """The variables are there before the session's own actions, an interrupt sets the event, and handles are closed."""
    opened: list[MemoryHandles] = []

    def open_handles(by_event: bool) -> MemoryHandles:
        opened.append(MemoryHandles(by_event))
        return opened[-1]

    with trio.fail_after(REAL_TIME):
        async with open_server() as server:
            server.facilities = attrs.evolve(server.facilities, open_inheritance=open_handles)
            action = VarAction(VarActionType.APPEND, "JPY_PARENT_PID", "2")
            request = scripted("s", env=(action,), interrupt_mode=InterruptMode.SIGNAL)
            session = server.create_session(request)
            other = server.create_session(scripted("t", interrupt_mode=InterruptMode.MESSAGE))
            await session.start()
            environment = session.initial_env
            session.interrupt()
            server.delete_session("t")
            await other.closed.wait()

    assert [True, False] == [handles.by_event for handles in opened]
    assert ("42", "8") == (environment["JPY_PARENT_PID"], environment["JPY_INTERRUPT_EVENT"])
    assert [1, 0] == [handles.interrupts for handles in opened]
    assert all(handles.closed for handles in opened)
