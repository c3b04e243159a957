"""The benchmarks run and yield their figures, whatever these are: on a machine that is busy they mean nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import pure_path
from benchmarks.__main__ import ALWAYS
from benchmarks.measures import MEASURES
from benchmarks.page import PAGE
from benchmarks.report import beyond, summarize

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.posix_only("the benchmarks need fork() and Unix sockets")

OF_SERVERS = ("server_", "idle_", "memory_", "fair_")
"""How the measures begin that make sense of servers only."""


def run(*words: str) -> str:
    """Run a benchmark as one would, and return what it prints."""
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A copy of the documentation's page, to be rewritten."""
    return Path(shutil.copy(PAGE, tmp_path))


def table(page: Path, name: str) -> list[str]:
    """Return the lines that the page has between its marks of this name."""
    return page.read_text().partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0].splitlines()


def test_quick_form_yields_all_figures(tmp_path: Path, page: Path) -> None:
    """The quick form measures everything but what needs other packages; a picture and a table can be made of it."""
    file = tmp_path / "figures.json"
    printed = run("benchmarks", "--quick", "--json", str(file))
    run("benchmarks.plot", str(file), "--page", str(page))

    measures: dict[str, Any] = json.loads(file.read_text())["measures"]
    figures = {who: {name for name in measures if who in measures[name]["results"]} for who in ALWAYS}
    of_all = {name for name in MEASURES if not name.startswith(("ipykernel_", *OF_SERVERS))}
    of_servers = {name for name in MEASURES if name.startswith(OF_SERVERS)}
    plain, *servers = ALWAYS
    assert {plain: of_all, **dict.fromkeys(servers, of_all | of_servers)} == figures
    assert set(printed.splitlines()[:2]) < set(table(page, "comparison"))
    assert ElementTree.parse(page.with_name("comparison.svg")).getroot().tag.endswith("svg")


@pytest.mark.benchmarks
def test_growth_yields_both_points_of_each_count(page: Path) -> None:
    """The table has a line for each number of sessions when idle and when busy, and the picture can be read."""
    run("benchmarks.growth", "--counts", "1", "2", "--seconds", "0.5", "--page", str(page))

    lines = [line.split(" | ")[:2] for line in table(page, "growth") if line[:3] in ("| 1", "| 2")]
    busy = "20 messages a second"
    assert [["| 1", "nothing"], ["| 1", busy], ["| 2", "nothing"], ["| 2", busy]] == lines
    assert ElementTree.parse(page.with_name("growth.svg")).getroot().tag.endswith("svg")


@pytest.mark.benchmarks
def test_large_message_and_long_history_pass_whole(page: Path) -> None:
    """What the benchmark sends arrives, or it would fail or wait for it; each stage has its line."""
    run("benchmarks.bounds", "--large", "1000000", "--history", "1000", "--page", str(page))

    stages = [line.split(" | ")[0] for line in table(page, "bounds") if line.startswith("| a") or line[:3] == "| 1"]
    assert ["| after", "| a session", "| a message of 1 MB to its client"] == stages[:3]
    assert ["| after", "| a session", "| 1,000 messages without a client", "| a client reads them"] == stages[3:]


def test_guard_fails_at_twice_the_cost() -> None:
    """A step of the pure path that costs more than twice what is stored is beyond what is allowed; others are not."""
    units = {name: stored * 1.9 for name, stored in pure_path.STORED.items()}
    units["history"] = pure_path.STORED["history"] * 2.1
    costs = {name: 3.0 * cost for name, cost in units.items()} | {"unit": 3.0}

    assert ["history"] == pure_path.beyond(costs)


@pytest.mark.benchmarks
def test_losses_of_a_busy_machine_are_counted() -> None:
    """A case is run as often as asked for, and says how many executions lost something, and how much."""
    header, outcome = run("benchmarks.busy", "--rounds", "1", "stopped").splitlines()

    assert header.startswith("stopped: ")
    assert re.match(r"  [01] of 1 executions lossy, \d+\.\d% missing, \d+\.\d µs of server CPU", outcome)


@pytest.mark.benchmarks
def test_starts_of_kernels_that_are_ready_are_timed() -> None:
    """There is a line for starts and one for restarts, both ways, and what a kernel that waits has in memory."""
    _, _, start, restart, memory = run("benchmarks.warm", "--count", "1").splitlines()

    row = r"\| {} \| \d+ \(\d+ to \d+\) \| \d+ \(\d+ to \d+\) \|"
    assert re.fullmatch(row.format("start"), start)
    assert re.fullmatch(row.format("restart"), restart)
    assert re.fullmatch(r"\d+ MB resident, \d+ MB its own", memory)


def test_guard_names_what_costs_too_much() -> None:
    """Ours only, by its ratio to the plain client; idle sessions by what a small execution costs that client."""
    rounds: Any = {
        "plain ZeroMQ": [{"execute_cpu": 100.0, "flood_cpu": 10.0}],
        "Kallichore, TCP": [{"execute_cpu": 250.0, "flood_cpu": 11.0, "idle_cpu": 0.2}],
        "jupyter_server": [{"execute_cpu": 900.0, "flood_cpu": 90.0, "idle_cpu": 9.0}],
    }
    summary = summarize(rounds)
    fine = beyond(summary, {"execute_cpu": 2.5, "flood_cpu": 1.1, "idle_cpu": 20.0})
    slow = beyond(summary, {"execute_cpu": 2.4, "flood_cpu": 1.1, "idle_cpu": 19.0})

    assert [] == fine
    assert ["small execute, server CPU: 2.50", "idle sessions, server CPU: 20.0"] == [
        line.removeprefix("Kallichore, TCP: ").partition(" times")[0] for line in slow
    ]


@pytest.mark.benchmarks
@pytest.mark.parametrize("way", [[], ["--sockets"]])
def test_sessions_elsewhere_are_measured(way: list[str]) -> None:
    """One row at rest and one at work, whether hosts call the server or are connected to, and messages come in it."""
    printed = run("benchmarks.elsewhere", "2", "--seconds", "1.5", "--settle", "0.5", *way)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]

    assert [["2", "nothing"], ["2", "a message a second"]] == [row[:2] for row in rows]
    assert ["0.00"] == [row[5] for row in rows[:1]]
    assert all(float(cell) > 0 for row in rows for cell in row[3:5])


@pytest.mark.benchmarks
def test_starts_of_servers_are_compared(page: Path) -> None:
    """Each command has a row in the page, and each start takes time and memory."""
    ours = str(Path(sys.executable).with_name("kcserver"))
    run("benchmarks.starts", "--rounds", "1", "--page", str(page), ours)

    rows = [line.split(" | ") for line in table(page, "starts") if line.startswith("| CPython")]
    assert len(rows) == 1
    assert all(float(cell.rstrip(" |")) > 0 for cell in rows[0][1:])
