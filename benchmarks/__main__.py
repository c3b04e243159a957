"""All benchmarks, one after another: ``python -m benchmarks``; each can be run alone, see its module."""

from __future__ import annotations

from benchmarks import against_jupyter_server, latency, throughput

for benchmark in (latency, throughput, against_jupyter_server):
    print(f"# {benchmark.__name__}", flush=True)
    benchmark.main()
