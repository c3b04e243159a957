"""How long people wait: ``python -m benchmarks.latency``.

The start of the server up to its first answer, the start of a kernel that boots at once and of ipykernel, and a small
execution from request to idle, as medians.
"""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.common import SCRIPTED, RawChannel, call, run_kcserver, start_session


def main() -> None:
    """Measure and print."""
    starts = []
    for _ in range(5):
        with run_kcserver() as (_, _, seconds):
            starts.append(seconds)
    print(f"kcserver, exec to first /status:   {statistics.median(starts) * 1000:7.0f} ms")
    scripted = [sys.executable, str(SCRIPTED), "{connection_file}"]
    ipykernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    with run_kcserver() as (base, _, _):
        for name, argv in (("scripted kernel", scripted), ("ipykernel", ipykernel)):
            times = []
            for number in range(5):
                began = time.perf_counter()
                start_session(base, f"{name}{number}".replace(" ", ""), argv)
                times.append(time.perf_counter() - began)
            print(f"start of {name + ':':25} {statistics.median(times) * 1000:7.0f} ms")
            channel = RawChannel(base, f"/sessions/{name}0/channels".replace("scripted kernel", "scriptedkernel"))
            channel.until_idle(channel.execute("print 1" if name.startswith("s") else "1"))
            times = []
            for _ in range(100):
                began = time.perf_counter()
                channel.until_idle(channel.execute("print 1" if name.startswith("s") else "1"))
                times.append(time.perf_counter() - began)
            print(f"execution in {name + ':':21} {statistics.median(times) * 1000:7.2f} ms")
        times = []
        for _ in range(200):
            began = time.perf_counter()
            call(base, "GET", "/status")
            times.append(time.perf_counter() - began)
        print(f"GET /status, a connection each:    {statistics.median(times) * 1000:7.2f} ms")


if __name__ == "__main__":
    main()
