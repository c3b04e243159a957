"""kcclient run: scripts and notebooks, in kernels of their own and in sessions; and what programs are told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
import trio
from nbformat import v4

from command import Ended, kcclient
from kallichore.client.api_client import ApiClient
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import REAL_TIME, address_of, body, open_started


def script(place: Path, text: str, name: str = "script.py") -> str:
    """Write a file, and return its path."""
    (place / name).write_text(text)
    return str(place / name)


def notebook(place: Path, *sources: str, kernel: str = "python3") -> str:
    """Write a notebook with cells of code, and return its path."""
    made = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), *map(v4.new_code_cell, sources)])
    made.metadata.kernelspec = {"name": kernel, "display_name": kernel}
    return script(place, nbformat.writes(made), "in.ipynb")


async def test_script_is_run_up_to_the_first_cell_that_fails(tmp_path: Path) -> None:
    """Its cells share a kernel; the error says which it was, and the others do not run."""
    ended = await kcclient("run", script(tmp_path, "# %%\nx = 6\n# %%\nx * 7\n# %%\n1 / 0\n# %%\nprint('never')\n"))

    assert (1, "42\n") == (ended.code, ended.out)
    assert "ZeroDivisionError: division by zero" in ended.err
    assert ended.err.endswith("Error: Stopped at cell 3 of 4: 1 / 0\n")


@pytest.mark.parametrize(("code", "exit_code"), [("import sys; sys.exit(3)", 3), ("exit()", 0)])
async def test_code_that_asks_for_the_end_ends_the_run(code: str, exit_code: int, tmp_path: Path) -> None:
    """With its own exit code, and without IPython's advice."""
    ended = await kcclient("run", script(tmp_path, f"# %%\nprint('first')\n# %%\n{code}\n# %%\nprint('never')\n"))

    assert (exit_code, "first\n") == (ended.code, ended.out)
    assert "To exit" not in ended.err


async def test_outputs_are_written_to_a_notebook(tmp_path: Path) -> None:
    """Those of cells that ran, also if one fails; what another run left behind them is gone."""
    file, output = notebook(tmp_path, "print('a'); print('b')", "7", "1 / 0", "8"), tmp_path / "out.ipynb"
    output.write_text("old")
    output.chmod(0o640)
    ended = await kcclient("run", file, "-o", str(output))
    cells = nbformat.read(output, as_version=4).cells
    text, result, error, never = cells[1].outputs, cells[2].outputs, cells[3].outputs, cells[4].outputs

    assert (1, "") == (ended.code, ended.out)
    assert [("stream", "a\nb\n")] == [(each.output_type, each.text) for each in text]
    assert [("execute_result", "7", 2)] == [
        (each.output_type, each.data["text/plain"], each.execution_count) for each in result
    ]
    assert ["ZeroDivisionError"] == [each.ename for each in error]
    assert ([], [1, 2, 3, None]) == (never, [cell.execution_count for cell in cells[1:]])
    if sys.platform != "win32":
        assert 0o640 == output.stat().st_mode & 0o777
    assert {"in.ipynb", "out.ipynb"} == {path.name for path in tmp_path.iterdir()}


async def test_programs_are_told_each_cell(tmp_path: Path) -> None:
    """One JSON document, with what each cell that ran put out."""
    ended = await kcclient("run", notebook(tmp_path, "print('a')", "1 / 0", "2"), "--json")
    told = json.loads(ended.out)

    assert (1, "") == (ended.code, ended.err)
    assert ("error", 1) == (told["status"], told["exit_code"])
    assert [("ok", "a\n"), ("error", "")] == [(cell["status"], cell["text"]) for cell in told["cells"]]


async def test_programs_are_told_the_result(tmp_path: Path) -> None:
    """What was printed, what it came to, and how it ended; questions are asked on standard error."""
    worked = await kcclient("exec", "--json", "print(input('who? ')); 6 * 7", stdin=b"Ada\n")
    failed = await kcclient("exec", "--json", "import sys; sys.exit(3)")
    late = await kcclient("exec", "--json", "--timeout", "0.5", "import time; time.sleep(60)")
    told = json.loads(worked.out)

    assert (0, "who? ") == (worked.code, worked.err)
    assert ("ok", "Ada\n", {"text/plain": "42"}) == (told["status"], told["text"], told["data"])
    assert (3, ("error", 3)) == (failed.code, tuple(json.loads(failed.out)[name] for name in ("status", "exit_code")))
    assert (124, "timeout") == (late.code, json.loads(late.out)["status"])
    assert late.err.startswith("Error: The time is up")


async def test_files_that_cannot_be_run_are_told(tmp_path: Path) -> None:
    """Nothing is started for them; the exit code is that of a wrong command line."""
    good = script(tmp_path, "1")
    wrong = {
        ("run", str(tmp_path / "none.py")): "Could not read",
        ("run", script(tmp_path, "x", "x.ipynb")): "is no notebook",
        ("run", str(tmp_path)): "Could not read",
        ("run", good, "-o", "out.txt"): "has to end with .ipynb",
        ("run", good, "-o", str(tmp_path / "none" / "out.ipynb")): "Could not write",
        ("exec", "--env", "x", "1"): "NAME=VALUE",
    }
    ended = {command: await kcclient(*command) for command in wrong}

    assert dict.fromkeys(wrong, (2, "")) == {command: (each.code, each.out) for command, each in ended.items()}
    assert [] == [each.err for command, each in ended.items() if wrong[command] not in each.err]


async def test_code_comes_from_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument that is a file's name; with -c it is code all the same. It runs where it is told, with variables."""
    file = script(tmp_path, "import os; print(os.getcwd(), os.environ['A'])")
    root = os.path.abspath("/")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1+1").write_text("print('of a file')")
    ended = [
        await kcclient("exec", "--cwd", root, "--env", "A=b=c", file),
        await kcclient("exec", "1+1"),
        await kcclient("exec", "-c", "1+1"),
    ]

    assert [Ended(0, f"{root} b=c\n", ""), Ended(0, "of a file\n", ""), Ended(0, "2\n", "")] == ended


# In sessions


async def test_commands_take_nothing_that_is_others(private_place: Path) -> None:
    """What was handed over stays for who comes next, past an execution that is waited for; its own is told once."""
    options = ["-c", str(private_place / "server.json")]
    async with serve(ServerConfig(connection_file=private_place / "server.json")) as server:
        async with open_started(ApiClient(address_of(server)), body()) as channel:
            handed = await kcclient(*options, "execute", "print left")
            waited = await kcclient(*options, "execute", "--wait", "print mine")
            ran = await kcclient(*options, "run", "-s", "s", script(private_place, "print also mine"))
            said = []
            while len(said) < 3:
                message = await channel.receive()
                said += [message["content"]["text"]] if "text" in message.get("content", {}) else []

    assert [Ended(0, "", ""), Ended(0, "mine\n", ""), Ended(0, "also mine\n", "")] == [handed, waited, ran]
    # Whoever is connected stays, and sees all of it.
    assert ["left\n", "mine\n", "also mine\n"] == said


async def test_which_of_several_sessions_has_to_be_said(private_place: Path) -> None:
    """Every command that acts refuses, lists them, and does nothing; history is told with a name."""
    options = ["-c", str(private_place / "server.json")]
    async with serve(ServerConfig(connection_file=private_place / "server.json")) as server:
        client = ApiClient(address_of(server))
        async with open_started(client, body("a")), open_started(client, body("b")):
            ended = [
                await kcclient(*options, *command)
                for command in (["kill"], ["restart"], ["interrupt"], ["delete"], ["execute", "x"], ["history"])
            ]
            await kcclient(*options, "execute", "-w", "-s", "a", "print said")
            history = await kcclient(*options, "history", "-s", "a")
            running = [session.status.value for session in server.sessions]
    told = "Error: The server has 2 sessions; say which one is meant, with -s:\n"

    assert [(2, "")] * 6 == [(each.code, each.out) for each in ended]
    assert [told + "  a (Scripted, idle)\n  b (Scripted, idle)\n"] * 6 == [each.err for each in ended]
    assert ["idle", "idle"] == running
    assert (0, ["print said", "    said"]) == (history.code, history.out.splitlines()[1:])


async def test_session_that_runs_is_not_started_again(private_place: Path) -> None:
    """It is said once, with the way to a fresh kernel; another kernel or folder is for new sessions."""
    options = ["-c", str(private_place / "server.json")]
    async with serve(ServerConfig(connection_file=private_place / "server.json")) as server:
        client = ApiClient(address_of(server))
        async with open_started(client, body("a")):
            running = await kcclient(*options, "start", "-s", "a")
        await client.call("PUT", "/sessions", body("b"))
        other = await kcclient(*options, "start", "-s", "b", "--cwd", "/")

    told = "Error: The kernel of session a runs already; for a fresh one: kcclient restart -s a\n"
    assert Ended(1, "", told) == running
    assert (2, "") == (other.code, other.out)
    assert "There is a session b already, and --cwd is for new ones" in other.err


async def complete(words: str) -> str:
    """Return what the shell is offered for the last of some words."""
    variables = {"_KCCLIENT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": f"{words.count(' ')}"}
    code = "from kallichore.cli.kcclient import main; main(prog_name='kcclient')"
    with trio.fail_after(REAL_TIME):
        ended = await trio.run_process(
            [sys.executable, "-c", code], env={**os.environ, **variables}, capture_stdout=True, capture_stderr=True
        )

    assert b"" == ended.stderr
    return ended.stdout.decode()


async def test_shell_is_told_sessions_and_kernels(private_place: Path) -> None:
    """At Tab behind -s and -k; where nobody answers there is nothing to offer, and no error."""
    file = private_place / "server.json"
    async with serve(ServerConfig(connection_file=file)) as server:
        await ApiClient(address_of(server)).call("PUT", "/sessions", body("analysis"))
        sessions = await complete(f"kcclient -c {file} info -s an")
        kernels = await complete(f"kcclient -c {file} start -k py")
    nobody = await complete(f"kcclient -c {file} info -s an")

    assert "plain,analysis\n" == sessions
    assert "plain,python3\n" in kernels
    assert nobody.strip() == ""


async def test_file_without_code_is_said_and_starts_nothing(tmp_path: Path) -> None:
    """It worked; a notebook of it is written where that was asked for."""
    ended = await kcclient("run", script(tmp_path, "\n"), "-o", str(tmp_path / "out.ipynb"), "--start-timeout", "1")

    assert Ended(0, "", "There is no code in it\n") == ended
    assert [] == nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
