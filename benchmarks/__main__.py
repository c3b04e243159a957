"""Kallichore, Jupyter's servers and a plain ZeroMQ client on the same kernels, in one run: ``python -m benchmarks``.

They take turns, round by round, since a machine that is shared is faster at one time than at another. What is worth
comparing are the ratios.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from benchmarks.measures import QUICK, Scale, measure_round
from benchmarks.report import Rounds, as_table, beyond, summarize

ALWAYS = (
    *("plain ZeroMQ", "Kallichore, TCP", "Kallichore, Unix socket", "Kallichore, Jupyter's API"),
    "Kallichore, durable",
)


ALLOWED = {
    "execute_cpu": 4.5,
    "flood_cpu": 1.7,
    "displays_cpu": 5.3,
    "blobs_cpu": 2.9,
    "idle_cpu": 35.0,
}
"""CPU of our servers, as ratios to the plain client's: half as much again as was measured when this was written. Renew
it with reason."""


def main() -> int:
    """Run the rounds and print the table; return 1 if it is to be checked, and something costs too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--quick", action="store_true", help="one small round without Jupyter's servers")
    parser.add_argument("--check", action="store_true", help="fail if ours uses much more CPU than it did")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    options = parser.parse_args()
    contestants = [name for name in CONTESTANTS if not options.quick or name in ALWAYS]
    scale, count = (QUICK, 1) if options.quick else (Scale(), options.rounds)
    rounds: Rounds = {name: [] for name in contestants}
    for number in range(count):
        # Each round begins with another one: who follows whom is no advantage.
        start = number % len(contestants)
        for name in contestants[start:] + contestants[:start]:
            print(f"round {number + 1} of {count}: {name}", file=sys.stderr, flush=True)
            rounds[name].append(measure_round(CONTESTANTS[name], scale))
    summary = {**summarize(rounds), "rounds": count, "scale": scale._asdict()}
    print(as_table(summary))
    print("\nmedian ×ratio to plain ZeroMQ ±half the range of the rounds; plain ZeroMQ's CPU is the client's")
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    slow = beyond(summary, ALLOWED) if options.check else []
    print(*slow, sep="\n", end="\n" if slow else "")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
