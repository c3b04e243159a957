"""The kcclient command with a server that is not ours: jupyter_server, as it is installed from PyPI."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from command import COMMAND, Ended, kcclient
from kernels import LONG_SLEEP, REAL_TIME

TOKEN = "sesame"

UNKNOWN = "6f2d3a52-0e3c-4c6e-9f6e-0a4d5f5c8f01"


def _start(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start jupyter_server; return its process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter_server", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
         f"--ServerApp.root_dir={folder}", "--ServerApp.terminals_enabled=False", *options],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"is running at:", line):
            line = next(process.stderr)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, found[0]
    raise AssertionError(f"jupyter_server ended with {process.wait()}")


def _stop(process: subprocess.Popen[str]) -> None:
    """End jupyter_server with its kernels."""
    process.terminate()
    process.communicate()


@pytest.fixture
def address(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run jupyter_server while a test runs; return its address."""
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(private_place / variable.lower()))
    process, address = _start(private_place, f"--IdentityProvider.token={TOKEN}")
    yield address
    _stop(process)


async def test_kernel_lives_by_commands_alone(address: str) -> None:
    """Start, list, run code in it, restart, interrupt, end: each is one command, the token wherever it may be."""
    ask = partial(kcclient, "-u", address, "-t", TOKEN)
    started = await ask("start")
    name = started.out.strip()
    listed = await kcclient("-u", f"{address}/lab?token={TOKEN}", "list")
    left = await kcclient("-u", address, "execute", "x = 6", JUPYTER_TOKEN=TOKEN)
    ran = await ask("execute", "--wait", "--code", "-", stdin=b"print(x * 7)\nx")
    restarted = await ask("restart")
    failed = await ask("execute", "-s", name, "--wait", "x")
    interrupted, ended = await ask("interrupt"), await ask("kill", "--json")
    none = await ask("list", "--json")

    assert (0, "") == (started.code, started.err)
    # Jupyter's API tells since when a kernel is idle, and neither its age nor its memory.
    assert listed.out.splitlines()[0].split()[-2:] == ["Queued", "Idle"]
    assert [name, "Python", "3", "(ipykernel)", "idle"] == listed.rows[0][:5]
    assert re.fullmatch("[0-9]+ s", " ".join(listed.rows[0][5:]))
    assert Ended(0, "", "") == left
    assert Ended(0, "42\n6\n", "") == ran
    assert Ended(0, f"{name}: restarted\n", "") == restarted
    assert (1, "", True) == (failed.code, failed.out, "NameError" in failed.err)
    assert Ended(0, f"{name}: interrupted\n", "") == interrupted
    assert (0, {"session_id": name, "result": "killed"}) == (ended.code, json.loads(ended.out))
    assert {"total": 0, "sessions": []} == json.loads(none.out)


async def test_code_runs_in_kernels_of_its_own(address: str, private_place: Path) -> None:
    """Exec, run and console leave nothing behind; questions are answered, and exit codes are as always."""
    script = private_place / "script.py"
    script.write_text("# %% one\nprint('one')\n# %% two\n'two'\n")
    ask = partial(kcclient, "-u", address, "-t", TOKEN)
    answered = await ask("exec", "print('Hello', input('Name? '))", stdin=b"Ada\n")
    ended = await ask("exec", "import sys; sys.exit(3)")
    late = await ask("exec", "--timeout", "0.5", "import time; time.sleep(60)")
    ran = await ask("run", str(script), "-o", str(private_place / "out.ipynb"))
    typed = await ask("console", "-k", "python3", stdin=b"print('typed')")
    died = await ask("exec", "import os; os._exit(1)")
    left = await ask("list")

    assert Ended(0, "Name? Hello Ada\n", "") == answered
    assert (3, 124) == (ended.code, late.code)
    assert 0 == ran.code
    cells = json.loads((private_place / "out.ipynb").read_text())["cells"]
    assert [["one\n"], "'two'"] == [cells[0]["outputs"][0]["text"], cells[1]["outputs"][0]["data"]["text/plain"][0]]
    assert Ended(0, "typed\n", "") == typed
    assert (1, True) == (died.code, "The kernel ended before it was done" in died.err)
    assert [] == left.rows


async def test_ctrl_c_interrupts_the_code(address: str) -> None:
    """And the kernel stays."""
    ask, code = partial(kcclient, "-u", address, "-t", TOKEN), f"print('begun', flush=True); import time; {LONG_SLEEP}"
    await ask("start")
    with trio.fail_after(REAL_TIME):
        process = await trio.lowlevel.open_process(
            [*COMMAND, "-u", address, "-t", TOKEN, "execute", "-w", code],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        said = await process.stdout.receive_some()
        process.send_signal(signal.SIGINT)
        exit_code = await process.wait()
        await process.stdout.aclose()
    after = await ask("execute", "-w", "6 * 7")

    assert (b"begun\n", 130) == (said, exit_code)
    assert Ended(0, "42\n", "") == after


async def test_what_it_has_nothing_like_is_said_in_one_sentence(address: str) -> None:
    """And no other exit code than that of a refusal; the token is in none of it."""
    ask = partial(kcclient, "-u", f"{address}/?token={TOKEN}")
    commands = {
        ("logs",): "has no logs to show",
        ("history",): "has no history of what ran",
        ("configuration",): "has no settings that can change",
        ("create",): "has no sessions without a kernel that runs",
        ("connect", "-s", UNKNOWN, "--watch"): "has no --watch",
        ("exec", "--env", "A=B", "1"): "--env is not for it",
        ("interrupt", "-s", UNKNOWN): f"There is no kernel '{UNKNOWN}'; kcclient list shows those that there are",
        ("start", "-k", "nope"): "There is no kernel 'nope' where the server is; installed: python3",
    }
    ended = [await ask(*command) for command in commands]
    wrong = await kcclient("-u", address, "-t", "wrong-one", "exec", "1")

    for each, said in zip(ended, commands.values(), strict=True):
        assert (1, "", True, False) == (each.code, each.out, said in each.err, TOKEN in each.err)
    assert (1, "", False) == (wrong.code, wrong.out, "wrong-one" in wrong.err)
    assert f"Error: The server at {address} needs a token, and this is not it; give it with --token" in wrong.err


async def test_server_without_a_token_below_a_path(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pages of other origins are kept out by a cookie, which we have to have as well; a token is no harm."""
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(private_place / "config"))
    process, address = await trio.to_thread.run_sync(
        _start, private_place, "--IdentityProvider.token=", "--ServerApp.base_url=/deep/er"
    )
    try:
        ran = [await kcclient("-u", f"{address}/deep/er/tree", *more, "exec", "6 * 7") for more in ((), ("-t", "x"))]
        lost = await kcclient("-u", f"{address}/deeper", "list")
    finally:
        _stop(process)

    assert [Ended(0, "42\n", "")] * 2 == ran
    assert (1, True) == (lost.code, "/deeper/api was answered with status 404; is the path right?" in lost.err)
