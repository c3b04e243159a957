"""The rounds of all contestants in short: medians, ratios to plain ZeroMQ, spread; as a table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from typing import Any

from benchmarks.measures import MEASURES

REFERENCE = "plain ZeroMQ"
OURS = "Kallichore"

Rounds = dict[str, list[dict[str, float]]]
"""Each contestant's rounds: figures by the name of their measure."""


def summarize(rounds: Rounds) -> dict[str, Any]:
    """Return, for each measure and contestant, the values, their median and spread, and the ratio to plain ZeroMQ."""
    measures = {}
    for name, measure in MEASURES.items():
        values = {who: [figures[name] for figures in each if name in figures] for who, each in rounds.items()}
        medians = {who: statistics.median(each) for who, each in values.items() if each}
        if medians:
            reference = medians.get(REFERENCE)
            results = {who: _result(values[who], median, reference) for who, median in medians.items()}
            measures[name] = {**measure._asdict(), "results": results}
    system = f"{platform.system()} {platform.machine()}"
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": system}
    return {"machine": machine, "contestants": list(rounds), "measures": measures}


def _result(values: list[float], median: float, reference: float | None) -> dict[str, Any]:
    spread = (max(values) - min(values)) / median if median else 0.0
    return {"values": values, "median": median, "spread": spread, "ratio": median / reference if reference else None}


DURABLE, WITH_HOSTS = "Kallichore, durable", 3.0
"""The contestant whose kernels have hosts, and how much more it may cost, with them, than the others of ours."""


def beyond(summary: dict[str, Any], allowed: dict[str, float]) -> list[str]:
    """Return what costs our servers more CPU than is allowed, in words.

    Args:
        summary: What `summarize` returned.
        allowed: For each measure of CPU the most that it may be, as a ratio to the plain client's. A plain client has
            no idle sessions; for those it is the time in a second, to what a small execution costs that client.
    """
    measures, found = summary["measures"], []
    execution = measures["execute_cpu"]["results"][REFERENCE]["median"]
    for name, most in allowed.items():
        for who, result in measures[name]["results"].items():
            ratio = result["median"] * 1e4 / execution if name == "idle_cpu" else result["ratio"]
            limit = most * (WITH_HOSTS if who == DURABLE else 1)
            if who.startswith(OURS) and ratio > limit:
                found.append(
                    f"{who}: {measures[name]['title']}: {number(ratio)} times the plain client's, not {limit:g}"
                )
    return found


def as_table(summary: dict[str, Any]) -> str:
    """Return a Markdown table."""
    contestants = summary["contestants"]
    lines = [["", *contestants], ["---", *("---:" for _ in contestants)]]
    for measure in summary["measures"].values():
        cells = [_cell(measure["results"].get(who)) for who in contestants]
        lines.append([f"{measure['title']} ({measure['unit']})", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = (" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(f"| {row} |" for row in rows)


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    ratio = f" ×{number(result['ratio'])}" if result["ratio"] is not None else ""
    spread = f" ±{result['spread'] / 2:.0%}" if len(result["values"]) > 1 else ""
    return f"{number(result['median'])}{ratio}{spread}"


def number(value: float) -> str:
    """Return a number with three digits that count."""
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"
