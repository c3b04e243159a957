"""The page about Jupyter's tools: what it says can be done, done as it stands there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
import trio

from kallichore.config import ServerConfig
from kallichore.embed import serve

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "jupyter.md"

TOKEN = "t0ken"

PATIENCE = 100.0
"""Seconds for a program that imports half of Jupyter and starts a kernel."""

PROGRAMS = [
    found.groups()
    for found in re.finditer(r"^```(python|bash)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
]
RUNNERS = {"python": [sys.executable, "-W", "ignore", "-c"], "bash": ["bash", "-ec"]}
EXPORT = re.compile(r"^export (JUPYTER_GATEWAY_URL)=(.*)$", re.MULTILINE)


def fitted(text: str, port: int | None) -> str:
    """Return a text of the page for this server."""
    return text.replace("8899", str(port)).replace("TOKEN", TOKEN)


def test_page_has_programs() -> None:
    """The next test has something to run: nbclient, papermill, nbconvert, jupyter_kernel_client."""
    assert [language for language, _ in PROGRAMS] == ["python", "python", "bash", "python"]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.posix_only("bash")] if language == "bash" else [])
        for number, (language, _) in enumerate(PROGRAMS)
    ],
)
async def test_program_of_the_page_runs(number: int, private_place: Path) -> None:
    """It ends well, 42 is what came of it, and no kernel is left."""
    language, program = PROGRAMS[number]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell("6 * 7")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), private_place / "in.ipynb")
    found = EXPORT.search(PAGE.read_text())
    assert found is not None
    async with serve(ServerConfig(token=TOKEN)) as server:
        port = server.address.port
        commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                [*RUNNERS[language], fitted(program, port)],
                env={**os.environ, found[1]: fitted(found[2], port), "HOME": str(private_place), "PATH": commands},
                cwd=private_place,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        left = server.sessions
    written = private_place / "out.ipynb"
    came = done.stdout.decode() + (written.read_text() if written.exists() else "")

    assert done.returncode == 0, done.stderr.decode()
    assert "42" in came
    assert left == []
