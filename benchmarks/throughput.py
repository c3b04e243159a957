"""How many messages a second get through, and what each costs: ``python -m benchmarks.throughput [MESSAGES]``.

A kernel floods iopub with messages of 450 bytes; a client that only counts receives them through kcserver. Beside it,
in the same run, a plain ZeroMQ subscriber receives the same flood from the same kernel, without any server. The ratio
of the two and the server's CPU time a message are what is worth comparing; the machine's noise is in both.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import zmq

from benchmarks.common import SCRIPTED, RawChannel, run_kcserver, start_session

SIZE = 100
"""Characters of text in each message; headers and the rest make it about 450 bytes."""

ROUNDS = 5


def measure_server(count: int) -> tuple[float, float]:
    """Return messages a second through kcserver, and its CPU microseconds a message."""
    rates, costs = [], []
    with run_kcserver("--resource-sample-interval", "0", "--log-level", "error") as (base, pid, _):
        start_session(base, "b", [sys.executable, str(SCRIPTED), "{connection_file}"])
        channel = RawChannel(base, "/sessions/b/channels")
        channel.until_idle(channel.execute("print warm"))
        for _ in range(ROUNDS):
            before, began = psutil.Process(pid).cpu_times(), time.perf_counter()
            channel.until_idle(channel.execute(f"repeat {count} {SIZE}"))
            elapsed = time.perf_counter() - began
            after = psutil.Process(pid).cpu_times()
            rates.append(count / elapsed)
            costs.append((after.user + after.system - before.user - before.system) / count * 1e6)
    return statistics.median(rates), statistics.median(costs)


def measure_zeromq(count: int) -> float:
    """Return messages a second from the same kernel to a plain subscriber."""
    context = zmq.Context()
    with tempfile.TemporaryDirectory() as place:
        ports = [zmq.Context.instance().socket(zmq.REP).bind_to_random_port("tcp://127.0.0.1") for _ in range(5)]
        zmq.Context.instance().destroy(linger=0)
        names = ("shell_port", "control_port", "stdin_port", "iopub_port", "hb_port")
        info = {**dict(zip(names, ports, strict=True)), "ip": "127.0.0.1", "key": "k", "transport": "tcp"}
        file = Path(place) / "kernel.json"
        file.write_text(json.dumps(info))
        process = subprocess.Popen([sys.executable, str(SCRIPTED), str(file)])
        shell, iopub = context.socket(zmq.DEALER), context.socket(zmq.SUB)
        iopub.rcvhwm = 0
        iopub.subscribe(b"")
        shell.connect(f"tcp://127.0.0.1:{info['shell_port']}")
        iopub.connect(f"tcp://127.0.0.1:{info['iopub_port']}")
        try:
            time.sleep(1)
            rates = []
            for _ in range(ROUNDS):
                parts = [
                    json.dumps({"msg_id": os.urandom(4).hex(), "msg_type": "execute_request"}).encode(),
                    b"{}",
                    b"{}",
                ]
                parts.append(json.dumps({"code": f"repeat {count} {SIZE}"}).encode())
                signature = hmac.new(b"k", b"".join(parts), hashlib.sha256).hexdigest().encode()
                began = time.perf_counter()
                shell.send_multipart([b"<IDS|MSG>", signature, *parts])
                while b'"idle"' not in iopub.recv_multipart()[6]:
                    pass
                rates.append(count / (time.perf_counter() - began))
        finally:
            process.kill()
            process.wait()
            context.destroy(linger=0)
    return statistics.median(rates)


def main() -> None:
    """Measure both and print the comparison."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    rate, cost = measure_server(count)
    plain = measure_zeromq(count)
    print(f"kcserver:     {rate:9,.0f} messages/s   {cost:5.1f} µs of server CPU a message")
    print(f"plain ZeroMQ: {plain:9,.0f} messages/s   (kcserver reaches {rate / plain:.0%} of it)")


if __name__ == "__main__":
    main()
