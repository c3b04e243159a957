"""What a machine that is too busy makes kernels lose: ``python -m benchmarks.busy``.

A kernel whose output is not fetched in time drops it itself, since ZeroMQ's queues are short (1,000 messages, unless a
kernel says otherwise; ipykernel does not). Each case is a number of executions at once, of fresh kernels, with far more
to do than the machine has processors; counted is which of them are short of something. Nothing should be.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.clients import WebSocketChannel
from benchmarks.contestants import KallichoreServer, open_kallichore_tcp

SILENCE = 5.0
"""Seconds without a message of an execution after which its end is taken for lost too."""

RATE = 10_000


class Case(NamedTuple):
    """Executions at once."""

    what: str
    kind: str
    """The kernel, of `benchmarks.contestants.KERNELS`."""
    kernels: int
    code: str
    expected: int
    """Messages, or lines where `mark` is a line's end."""
    mark: bytes
    stopped: float = 0.0
    """Seconds for which the server is stopped in the middle."""


CASES = {
    "ipykernel": Case(
        "six ipykernels print 2,000 lines each, with a flush for each",
        "ipykernel", 6, "for number in range(2000): print(number, flush=True)", 2000, rb"\n",
    ),
    "flood": Case(
        "eight kernels with 10,000 messages a second each, for two seconds",
        "short-queue", 8, f"tick {RATE} 2", 2 * RATE, b'"stream"',
    ),
    "stopped": Case(
        "one kernel with 10,000 messages a second; the server is stopped for a second",
        "short-queue", 1, f"tick {RATE} 3", 3 * RATE, b'"stream"', 1.0,
    ),
}  # fmt: skip


class Outcome(NamedTuple):
    """What came of the executions of a case."""

    lossy: int
    executions: int
    missing: int
    expected: int
    cpu: float
    """Microseconds of the server's CPU time for each that came."""

    def __str__(self) -> str:
        return (
            f"{self.lossy} of {self.executions} executions lossy, {self.missing / self.expected:.1%} missing, "
            f"{self.cpu:.1f} µs of server CPU for each message"
        )


def _count(channel: WebSocketChannel, case: Case) -> int:
    """Execute, and return how much came."""
    found, missing = 0, 2
    msg_id = channel.send_execute(case.code)
    channel.socket.settimeout(SILENCE)
    heard = time.monotonic()
    try:
        # What the session tells of itself goes on.
        while missing and time.monotonic() < heard + SILENCE:
            for payload in channel.receive():
                if msg_id not in payload:
                    continue
                heard = time.monotonic()
                if b'"stream"' in payload:
                    found += payload.count(case.mark)
                elif b'"idle"' in payload or b'"execute_reply"' in payload:
                    missing -= 1
    except TimeoutError:
        pass
    return found


def _at_once(count: int, act: Callable[[], None]) -> None:
    threads = [threading.Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(case: Case) -> Outcome:
    """Run the executions of a case once."""
    found: list[int] = []
    with open_kallichore_tcp() as server:
        assert isinstance(server, KallichoreServer)
        used: list[float] = []
        together = threading.Barrier(case.kernels, lambda: used.append(server.cpu()))

        def execute() -> None:
            channel = server.start_kernel(case.kind)
            together.wait()
            found.append(_count(channel, case))

        stopper = threading.Thread(target=_stop, args=(server, case.stopped))
        if case.stopped:
            stopper.start()
        _at_once(case.kernels, execute)
        if case.stopped:
            stopper.join()
        cpu = server.cpu() - used[0]
    missing = [case.expected - count for count in found]
    lossy, cost = sum(count > 0 for count in missing), cpu * 1e6 / max(1, sum(found))
    return Outcome(lossy, case.kernels, sum(missing), case.kernels * case.expected, cost)


def _stop(server: KallichoreServer, seconds: float) -> None:
    """Stop a server for a while, when the kernel prints."""
    while not server.address.call("GET", "/status")["busy"]:
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(server.pid, signal.SIGCONT)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each case (5)")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="which of them; all, if none is named")
    options = parser.parse_args()
    for name in options.cases or CASES:
        print(f"{name}: {CASES[name].what}", flush=True)
        for _ in range(options.rounds):
            print(f"  {measure(CASES[name])}; load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
