"""What the documentation says can be done, done: its programs, its transcript, its unit file, its list of codes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kallichore import errors
from kallichore.cli.launch import read_command_line

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

PROGRAM_LIMIT = 60.0
"""Seconds that one program of the documentation may take; they take one or two."""

EXAMPLES = {
    "context_manager.py": "sessions: 0\nsame process: True\nnobody listens there any more\n",
    "embed_in_trio.py": "listening on tcp, sessions: 0\npython is idle\n42\nnothing is left\n",
    "embed_quart.py": (
        "200 ok hello\n {'text/plain': '42'}\n503 died None None\n200 ok  {'text/plain': \"'alive again'\"}\n"
    ),
    "errors_and_cancellation.py": (
        "KS-8, exit code 3, it printed 'no such luck'\n"
        "waited long enough; the kernel is busy\n"
        "KernelDiedError the kernel is exited\n"
    ),
    "http_client.py": "started: python\nconnected: False\nsaid while nobody listened\n",
    "many_servers.py": (
        "different addresses: True\ndifferent tokens: True\n['same-name: idle']\n['same-name: uninitialized']\n"
    ),
    "without_http.py": (
        "[2] printed 'adding\\n', result 42\n"
        "error: ZeroDivisionError: division by zero\n"
        "The time that was given for the execution is up; it was interrupted\n"
        "1\n2\n"
    ),
}


def _environment(**more: str) -> dict[str, str]:
    """Return an environment in which this very tree is what is imported, and nothing points to a server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KALLICHORE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "120", **more}


def _run(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(program)], env=_environment(), timeout=PROGRAM_LIMIT, capture_output=True, text=True
    )


def _blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the code blocks of a page in one language, each with its line number."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start()) + 1, block[1]) for block in found]


PROGRAMS = {
    f"{page.relative_to(ROOT)}:{line}": code
    for page in (ROOT / "README.md", *sorted(DOCS.glob("[!_]*/*.md")), *sorted(DOCS.glob("*.md")))
    for line, code in _blocks(page, "python")
    if "trio.run(" in code
}


def test_every_example_has_an_expected_output() -> None:
    """An example without an expectation would be a file that nobody runs."""
    assert set(EXAMPLES) == {path.name for path in (DOCS / "examples").glob("*.py")}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_runs_to_its_end(name: str) -> None:
    """An example ends by itself with code 0, and prints what it is to print and nothing else."""
    result = _run(DOCS / "examples" / name)

    assert (0, EXAMPLES[name], "") == (result.returncode, result.stdout, result.stderr)


def test_readme_has_a_program() -> None:
    """The next test has something to run."""
    assert any(place.startswith("README.md:") for place in PROGRAMS)


@pytest.mark.parametrize("place", sorted(PROGRAMS))
def test_program_in_a_page_runs(place: str, tmp_path: Path) -> None:
    """A code block that is a whole program runs, and the kernel's 42 is in what it prints."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[place], encoding="utf-8")
    result = _run(program)

    assert (0, "") == (result.returncode, result.stderr)
    assert "42" in result.stdout


def _transcript(page: Path) -> list[tuple[str, str]]:
    """Return the commands of a page's ``console`` blocks, each with the output that the page shows."""
    steps: list[tuple[str, str]] = []
    for _, block in _blocks(page, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line.removeprefix("$ "), ""))
            else:
                command, shown = steps[-1]
                steps[-1] = command, f"{shown}{line}\n"
    return steps


def _matches(shown: str, said: str) -> bool:
    """Tell whether output is what a page shows: ``...`` stands for anything, any white space for any other, and the
    number of a process, a time or a size of memory for another.
    """
    shown, said = (re.sub(r"(?<=process )\d+|\d+\.\d(?= s)|\d+(?= MB)", "0", text) for text in (shown, said))
    parts = [re.escape(part.strip()) for part in " ".join(shown.split()).split("...")]
    return re.fullmatch(".*".join(parts), " ".join(said.split())) is not None


@pytest.mark.parametrize(
    ("shown", "said", "expected"),
    [
        ("42", "42\n", True),
        ("42", "43\n", False),
        ("", "an error\n", False),
        ("a  b", "a b  \n", True),
        ("...\nlast", "first\nlast\n", True),
        ("...\nlast", "first\nlast but one\n", False),
        ("...\nlast\n...", "last\n", True),
        ("process 12 had 54 MB for 0.0 s", "process 3456 had 7 MB\nfor 1.2 s\n", True),
        ("process 12", "process none\n", False),
    ],
)
def test_matcher_tells_right_from_wrong(shown: str, said: str, expected: bool) -> None:
    """The comparison below allows what it is to allow, and no more."""
    assert expected is _matches(shown, said)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Return a directory with this tree's ``kcserver`` and ``kcclient``, installed or not."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("kcserver", "kcclient"):
        script = directory / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kallichore.cli.{name} "$@"\n')
        script.chmod(0o755)
    return directory


@pytest.mark.skipif(shutil.which("bash") is None, reason="the transcript is run by bash")
@pytest.mark.parametrize("page", ["docs/tutorial.md", "README.md"])
def test_transcript_is_true(page: str, commands: Path, tmp_path: Path) -> None:
    """Each command of a page, typed one after another into a shell, prints what the page shows; numbers may differ."""
    steps = _transcript(ROOT / page)
    mark = "-- end of step --"
    script = "".join(f"{command}\necho '{mark}'\n" for command, _ in steps)
    place = tmp_path / "place"
    # The commands of this tree stand for those that were installed.
    activate = place / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=place,
        env=_environment(PATH=f"{commands}:{os.environ['PATH']}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = shell.communicate(timeout=PROGRAM_LIMIT)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.communicate()
    outputs = said.split(f"{mark}\n")
    answered = list(zip(steps, outputs, strict=False))
    wrong = [f"$ {command}\n{output}" for (command, shown), output in answered if not _matches(shown, output)]

    assert len(steps) > 10
    assert [] == wrong
    assert [""] == outputs[len(steps) :]


@pytest.mark.parametrize(
    ("name", "state"), [("kcserver", None), ("kcserver-durable", Path("/home/me/.local/state/kallichore"))]
)
@pytest.mark.posix_only("systemd is Linux's")
def test_unit_file_starts_a_server_that_exists(name: str, state: Path | None) -> None:
    """The options in a systemd unit are kcserver's, and its connection file is where the page says."""
    unit = (ROOT / "packaging" / f"{name}.service").read_text(encoding="utf-8")
    line = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert line is not None
    command = line[1].replace("%h", "/home/me").replace("%t", "/run/user/1").replace("%S", "/home/me/.local/state")
    program, *arguments = shlex.split(command)
    config = read_command_line(arguments, {}).config

    assert "kcserver" == Path(program).name
    assert state == config.state_directory
    assert "/run/user/1/kallichore/connection.json" == str(config.connection_file)
    assert "$XDG_RUNTIME_DIR/kallichore/connection.json" in (DOCS / "how-to" / "systemd.md").read_text(encoding="utf-8")


def test_every_code_is_documented() -> None:
    """A code that the source uses is either an error class's own, which the page lists, or named on the page."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "kallichore").rglob("*.py"))
    used = set(re.findall(r'"(KS-\d+)"', source))
    classes = {getattr(getattr(errors, name), "code", "") for name in errors.__all__}
    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")

    assert used - classes <= set(re.findall(r"`(KS-\d+)`", page))
    assert "<!-- generated: errors -->" in page
