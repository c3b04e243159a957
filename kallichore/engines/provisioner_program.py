"""The program in which Jupyter's kernel provisioners run: asyncio and jupyter_client, spoken to in lines of JSON.

``python -m kallichore.engines.provisioner_program`` is one process for all provisioners of a server. They are others'
code, written for jupyter_client's asyncio loop, and many of their "async" methods block it. Here that stops no session:
the server asks from time to time whether the loop still turns, and replaces the process if it does not.

The protocol, on stdin and stdout: the first line says where files may go; each further one is a request with a number,
which is answered by that number, in any order. What nobody asked for has no number: ``ready``, and what becomes of
kernels. Standard error is what provisioners print. At the end of stdin all kernels that are there are ended.

A launch is never cancelled: a provisioner that is stopped in the middle forgets what it has started. It goes on to its
end, and is undone then.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

from kallichore.engines import provisioner_launcher
from kallichore.engines.provisioner_launcher import use_local_processes
from kallichore.engines.provisioner_words import choose_encryption, choose_environment, decode, encode

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

POLL_EVERY, POLL_LOCAL_EVERY = 1.0, 0.1
"""Seconds between two looks at a kernel: each may be a question to a cluster, or only to this machine."""

SLOW_POLL = 30.0
"""Seconds after which a look that has not come back is told."""

CALL_LIMIT = 10.0
"""Seconds that each step of an end may take."""

LAST_LAUNCHES = 60.0
"""Seconds that launches get when the server is gone: each is undone when it has come to its end."""

INSTALL = "python -m pip install 'kallichore[provisioners]'"


@attrs.define(eq=False)
class Kernel:
    """A kernel, with the provisioner that looks after it."""

    kernel_id: str
    name: str
    """The provisioner's name in kernel.json."""
    manager: AsyncKernelManager
    provisioner: KernelProvisionerBase
    is_local: bool
    launching: asyncio.Task[Any] | None = None
    watching: asyncio.Task[Any] | None = None


@attrs.define(eq=False)
class Program:
    """What runs in the loop.

    Args:
        output: Where answers go.
        directory: Where connection files go.
    """

    output: BinaryIO
    directory: Path
    loop: asyncio.AbstractEventLoop
    stopping: asyncio.Event = attrs.field(factory=asyncio.Event)
    kernels: dict[str, Kernel] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _tasks: set[asyncio.Task[Any]] = attrs.field(factory=set)

    # What is said

    def say(self, **message: Any) -> None:
        """Send a line; from any thread."""
        with self._lock:
            try:
                self.output.write(encode(message))
                self.output.flush()
            except OSError:
                # The server is gone, which the end of stdin says as well.
                return

    def hear(self, line: bytes) -> None:
        """Take a request, in the thread that reads."""
        message = decode(line)
        if message is None:
            return
        if message.get("op") == "who":
            # The one question that is answered though the loop stands still.
            self.say(answer=message["number"], result=self._who_blocks())
        else:
            self.loop.call_soon_threadsafe(self._begin, message)

    def _who_blocks(self) -> dict[str, Any]:
        """Return whose call the loop is in just now, and where in the code that is."""
        task = asyncio.current_task(self.loop)
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        stack = traceback.extract_stack(frame)[-1:] if frame is not None else []
        place = "".join(f"{Path(each.filename).name}:{each.lineno}, in {each.name}" for each in stack)
        kernel_id, _, call = (task.get_name() if task is not None else "").partition(" ")
        return {"kernel": kernel_id if kernel_id in self.kernels else None, "call": call, "place": place}

    def _begin(self, message: dict[str, Any]) -> None:
        if message.get("op") == "ping":
            self.say(answer=message["number"], result=None)
            return
        self._spawn(message.get("kernel", ""), message["op"], self._answer(message))

    def _spawn(self, kernel_id: str, call: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in a task that bears the names by which it is told who blocks."""
        task = self.loop.create_task(work, name=f"{kernel_id} {call}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, message: dict[str, Any]) -> None:
        number = message["number"]
        try:
            result = await self._do(message["op"], message["kernel"], message.get("with") or {})
        except Exception as error:
            traceback.print_exc()
            self.say(answer=number, error=describe(error))
        except BaseException as error:  # noqa: ASYNC103
            # SystemExit of a provisioner is no reason to end all others'.
            self.say(answer=number, error=describe(error))
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self.say(answer=number, result=result)

    async def _do(self, op: str, kernel_id: str, given: dict[str, Any]) -> Any:
        if op == "launch":
            return await self._launch(kernel_id, given)
        if op == "adopt":
            return await self._adopt(kernel_id, given)
        kernel = self.kernels[kernel_id]
        provisioner = kernel.provisioner
        match op:
            case "signal":
                return await provisioner.send_signal(given["number"])
            case "terminate":
                return await provisioner.terminate(restart=given["restart"])
            case "kill":
                return await provisioner.kill(restart=given["restart"])
            case "shutdown_requested":
                # Some look there for whether an end is one that was asked for.
                kernel.manager.shutting_down = True
                return await provisioner.shutdown_requested(restart=given["restart"])
            case "finish":
                return await self._finish(kernel, restart=given["restart"])
            case "forget":
                return await self._forget(kernel)
        raise ValueError(f"unknown request {op!r}")

    # How kernels begin

    def _make(self, kernel_id: str, given: dict[str, Any]) -> Kernel:
        """Return a kernel with its provisioner; the one that it had before where it is restarted, as in Jupyter."""
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager
        from jupyter_client.provisioning.factory import KernelProvisionerFactory
        from jupyter_client.provisioning.local_provisioner import LocalProvisioner

        if kernel_id in self.kernels:
            kernel = self.kernels[kernel_id]
            kernel.provisioner.kernel_spec.env = given["spec"]["env"]
            return kernel
        name = given["provisioner_name"]
        manager = AsyncKernelManager(kernel_name=given["kernel_name"])
        spec = KernelSpec(**given["spec"])
        # Most provisioners ask it for ports, the key and much else. It is never started.
        manager._kernel_spec = spec
        manager.kernel_id = kernel_id
        manager.ip = "127.0.0.1"
        manager.connection_file = str(self.directory / f"kernel-{kernel_id}.json")
        manager.session.key = given["key"].encode()
        factory = KernelProvisionerFactory.instance()
        try:
            provisioner = factory.create_provisioner_instance(kernel_id, spec, parent=manager)
        except ModuleNotFoundError as error:
            if error.name is not None:
                raise
            known = ", ".join(sorted({each.name for each in factory._get_all_provisioners()}))
            raise LookupError(f"it is not installed here; there are {known}") from error
        manager.provisioner = provisioner
        is_local = type(provisioner).launch_kernel is LocalProvisioner.launch_kernel
        self.kernels[kernel_id] = kernel = Kernel(kernel_id, name, manager, provisioner, is_local)
        return kernel

    async def _launch(self, kernel_id: str, given: dict[str, Any]) -> dict[str, Any]:
        kernel = self._make(kernel_id, given)
        kernel.launching = asyncio.current_task()
        try:
            info = await self._run_launch(kernel, given)
        except BaseException:
            kernel.launching = None
            await self._forget(kernel)
            raise
        kernel.launching = None
        self._watch(kernel)
        return info

    async def _run_launch(self, kernel: Kernel, given: dict[str, Any]) -> dict[str, Any]:
        provisioner, environment = kernel.provisioner, given["environment"]
        if not kernel.is_local:
            environment = choose_environment(environment, given["own"])
        keywords: dict[str, Any] = {"env": environment, "cwd": given["directory"], "extra_arguments": []}
        if kernel.is_local:
            # Else ipykernel ends itself when this process is replaced.
            keywords["independent"] = True
        provisioner_launcher.provisioner.set(kernel.name)
        if kernel.manager.has_trait("transport_encryption"):
            kernel.manager.transport_encryption = choose_encryption(
                given["encryption"], can_encrypt=given["can_encrypt"], is_local=kernel.is_local
            )
        kernel.manager.shutting_down = False
        kernel.manager._launch_args = {each: keywords[each] for each in ("env", "cwd")}
        keywords = await provisioner.pre_launch(**keywords)
        command = keywords.pop("cmd")
        connection = await provisioner.launch_kernel(command, **keywords)
        await provisioner.post_launch(**keywords)
        process = getattr(provisioner, "process", None)
        has_process = kernel.is_local and isinstance(process, subprocess.Popen)
        return {
            "connection": dict(connection) if connection else None,
            "info": await provisioner.get_provisioner_info(),
            "pid": process.pid if has_process and process is not None else 0,
            "is_local": has_process,
        }

    async def _adopt(self, kernel_id: str, given: dict[str, Any]) -> bool:
        kernel = self._make(kernel_id, given)
        try:
            await kernel.provisioner.load_provisioner_info(given["info"])
            # Who has no process says 0 when it is polled: jupyter_client's own cannot find its processes again.
            is_there = kernel.provisioner.has_process and await kernel.provisioner.poll() is None
        except BaseException:
            self.kernels.pop(kernel_id, None)
            raise
        if is_there:
            self._watch(kernel)
        else:
            del self.kernels[kernel_id]
        return is_there

    # How they are watched

    def _watch(self, kernel: Kernel) -> None:
        kernel.watching = self._spawn(kernel.kernel_id, "poll", self._wait_for_end(kernel))

    async def _wait_for_end(self, kernel: Kernel) -> None:
        pause, is_told = POLL_LOCAL_EVERY if kernel.is_local else POLL_EVERY, False
        while True:
            try:
                code = await self._poll(kernel)
            except Exception as error:
                # A question that failed says nothing of the kernel.
                if not is_told:
                    self._tell(kernel, f"does not say whether the kernel is there: {describe(error)}")
                is_told = True
            else:
                is_told = False
                if code is not None:
                    break
            await asyncio.sleep(pause)
        self.say(kernel=kernel.kernel_id, ended={"code": await self._code(kernel, code), "is_certain": kernel.is_local})

    async def _poll(self, kernel: Kernel) -> Any:
        task = self._spawn(kernel.kernel_id, "poll", kernel.provisioner.poll())
        done, _ = await asyncio.wait([task], timeout=SLOW_POLL)
        if not done:
            self._tell(kernel, f"has not said for {SLOW_POLL:g} s whether the kernel is there")
        return await task

    async def _code(self, kernel: Kernel, polled: Any) -> int | None:
        """Return the exit code, by the better of a provisioner's two words."""
        waited = await self._bounded(kernel, "wait", kernel.provisioner.wait())
        code = waited if isinstance(waited, int) else polled
        return code if isinstance(code, int) else None

    def _tell(self, kernel: Kernel, text: str) -> None:
        self.say(kernel=kernel.kernel_id, trouble=text)

    # How they end

    async def _bounded(self, kernel: Kernel, call: str, work: Awaitable[Any]) -> Any:
        """Return what a step of an end comes to, or None: one that fails or hangs is told, and the others follow."""
        try:
            async with asyncio.timeout(CALL_LIMIT):
                return await work
        except TimeoutError:
            self._tell(kernel, f"has not come back from {call} for {CALL_LIMIT:g} s")
        except Exception as error:
            self._tell(kernel, f"failed in {call}: {describe(error)}")
        return None

    async def _finish(self, kernel: Kernel, *, restart: bool) -> None:
        """Have a provisioner clean up behind a kernel that has ended; for a restart it stays, as in Jupyter."""
        if kernel.watching is not None:
            kernel.watching.cancel()
        if kernel.provisioner.has_process:
            # It may have lied.
            await self._bounded(kernel, "kill", kernel.provisioner.kill(restart=restart))
        await self._bounded(kernel, "cleanup", kernel.provisioner.cleanup(restart=restart))
        kernel.manager.cleanup_connection_file()
        if not restart:
            self.kernels.pop(kernel.kernel_id, None)

    async def _forget(self, kernel: Kernel) -> None:
        """End a kernel, whatever state it is in."""
        if kernel.launching not in (None, asyncio.current_task()):
            assert kernel.launching is not None
            await asyncio.wait([kernel.launching])
        if self.kernels.get(kernel.kernel_id) is not kernel:
            return
        if kernel.watching is not None:
            kernel.watching.cancel()
        await self._bounded(kernel, "kill", kernel.provisioner.kill())
        await self._bounded(kernel, "wait", kernel.provisioner.wait())
        await self._finish(kernel, restart=False)

    async def end_all(self) -> None:
        """End what is there, when the server is gone or wants no more; launches come to their ends first."""
        launches = [kernel.launching for kernel in self.kernels.values() if kernel.launching is not None]
        if launches:
            await asyncio.wait(launches, timeout=LAST_LAUNCHES)
        ends = [self._spawn(each.kernel_id, "end", self._forget(each)) for each in self.kernels.values()]
        if ends:
            await asyncio.wait(ends, timeout=2 * CALL_LIMIT)
        # Some leave tasks behind that are to end something a little later.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=1.0)


def describe(error: BaseException) -> str:
    """Return an error in words, with its kind, which is often the better half."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _listen(program: Program) -> None:
    """Read requests to their end, in a thread of its own, so that the end is seen though the loop stands still."""
    for line in sys.stdin.buffer:
        program.hear(line)
    program.loop.call_soon_threadsafe(program.stopping.set)
    # Nobody is there any more to end a process that hangs.
    time.sleep(LAST_LAUNCHES + 4 * CALL_LIMIT)
    os._exit(1)


async def _run(output: BinaryIO, directory: Path) -> None:
    program = Program(output, directory, asyncio.get_running_loop())
    threading.Thread(target=_listen, args=(program,), daemon=True).start()
    program.say(ready=True)
    await program.stopping.wait()
    await program.end_all()


def _take_stdout() -> BinaryIO:
    """Return standard output for answers alone: what provisioners print goes to standard error."""
    mine = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    return mine


def main() -> None:
    """Run until stdin ends."""
    output = _take_stdout()
    hello = decode(sys.stdin.buffer.readline())
    if hello is None:
        return
    # A Ctrl-C is for the server, which ends us in order. Not ignored: what is started here would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        use_local_processes()
    except ImportError as error:
        output.write(encode({"failed": f"{error}; {INSTALL}"}))
        return
    asyncio.run(_run(output, Path(hello["directory"])))
    # What a third party has left behind, a thread that waits for ever for one, is not waited for.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
