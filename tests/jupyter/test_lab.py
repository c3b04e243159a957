"""JupyterLab and Notebook 7 in a browser, used as people use them, with their kernels at our server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import attrs
import nbformat
import pytest
import trio

from chromium import ENTER, PATIENCE, SHIFT, Page, find_chromium, open_page
from kallichore.client.address import Address
from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from scripted_proxy import Ending, Proxy, open_proxy

for name in ("jupyterlab", "notebook", "ipywidgets", "matplotlib"):
    pytest.importorskip(name, reason=f"{name} is not installed: nox -s lab")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here"),
]

TOKEN = "t0ken"

FRONT_ENDS = {"lab": ("jupyterlab", "lab/tree/a.ipynb"), "notebook": ("notebook", "notebooks/a.ipynb")}
"""The module that is run, and where a document is."""

SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
"""Else it asks, in the middle of a test, whether it may."""

PLOT = "import matplotlib.pyplot as plot\nplot.plot([1, 3, 2])\nplot.show()"
SLIDER = "import ipywidgets\nslider = ipywidgets.IntSlider(value=3, max=10)\nslider"
NUMBERS = "import time\nfor number in range(3000):\n    print(number)\n    time.sleep(0.001)"
"""Some three seconds, of which each tenth has output."""

MOST_TWICE = 1000
"""Lines; ipykernel publishes them in pieces of what it printed in a tenth of a second."""

LINES = "for number in range(20_000):\n    print(number)"

MUCH = 500
"""Pixels to the right that bring a slider to its end."""

WIDGET = "[...jupyterapp.shell.widgets('main')].find((each) => each.sessionContext)"
KERNEL = f"(window.jupyterapp && {WIDGET} && {WIDGET}.sessionContext.session || {{}}).kernel"


@attrs.frozen
class Notebook:
    """A document that is open in a page."""

    page: Page

    async def wait_connected(self) -> None:
        """Wait until the page has a kernel that has nothing to do."""
        is_idle = "it && it.connectionStatus === 'connected' && it.status === 'idle'"
        await self.page.wait_for(f"((it) => {is_idle})({KERNEL})")

    async def run(self, number: int) -> None:
        """Have a cell run as one does: a click into it, and Shift+Enter."""
        await self.page.focus(f"document.querySelectorAll('.jp-CodeCell .cm-content')[{number}]")
        await self.page.press(ENTER, SHIFT)

    async def wait_text(self, number: int, text: str) -> None:
        """Wait until a cell's output has this text in it."""
        await self.page.wait_for(f"{self._shown(number)}.includes({json.dumps(text)})")

    async def wait_done(self, number: int) -> None:
        """Wait until a cell has its number."""
        prompt = f"document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[{number}].innerText"
        await self.page.wait_for(f"/\\d/.test({prompt})")

    async def text_of(self, number: int) -> str:
        """Return all that a cell's output says: the page itself renders long ones by and by."""
        outputs = await self.page.evaluate(f"{WIDGET}.content.widgets[{number}].model.outputs.toJSON()")
        return "".join("".join(output.get("text", "")) for output in outputs)

    async def press_button(self, name: str) -> None:
        """Press a button of the toolbar."""
        await self.page.click(f"document.querySelector('[data-jp-item-name={name}] jp-button')")

    @staticmethod
    def _shown(number: int) -> str:
        return f"document.querySelectorAll('.jp-CodeCell')[{number}].querySelector('.jp-OutputArea').innerText"


async def _address_in(place: Path) -> str:
    """Return the address of a Jupyter server, once it has written that down."""
    while True:
        for file in place.glob("jpserver-*.json"):
            try:
                return str(json.loads(file.read_text())["url"])
            except ValueError:
                # It is being written.
                pass
        await trio.sleep(0.02)


async def _kill(process: trio.Process) -> None:
    """End a front end's server: asked politely it takes its time, and the kernels are ours."""
    process.kill()


@asynccontextmanager
async def run_front_end(name: str, gateway: Address, place: Path) -> AsyncIterator[str]:
    """Run JupyterLab's or Notebook's server in front of ours, and yield its address."""
    for setting, value in SETTINGS.items():
        file = place / "lab" / "user-settings" / f"{setting}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(value))
    options = [f"--gateway-url=http://127.0.0.1:{gateway.port}", f"--GatewayClient.auth_token={TOKEN}"]
    options += ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--IdentityProvider.token="]
    options += [f"--ServerApp.root_dir={place}", "--expose-app-in-browser"]
    places = dict.fromkeys(("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"), str(place))
    command = [sys.executable, "-m", FRONT_ENDS[name][0], *options]
    run = partial(
        trio.run_process, command, env={**os.environ, **places}, check=False, deliver_cancel=_kill,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        with trio.fail_after(PATIENCE):
            address = await _address_in(place)
        yield address
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_document(
    place: Path, *cells: str, front_end: str = "lab"
) -> AsyncIterator[tuple[Notebook, RunningServer, Proxy]]:
    """Run everything, and open a document with these cells; with a proxy between the front end's server and ours."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernel}), place / "a.ipynb")
    program = find_chromium()
    assert program is not None
    async with (
        serve(ServerConfig(token=TOKEN)) as server,
        open_proxy(Address(port=server.address.port)) as proxy,
        run_front_end(front_end, proxy.address, place) as address,
        open_page(program, place) as page,
    ):
        await page.go(address + FRONT_ENDS[front_end][1])
        notebook = Notebook(page)
        await notebook.wait_connected()
        yield notebook, server, proxy


@pytest.mark.parametrize("front_end", FRONT_ENDS)
async def test_cells_have_a_plot_a_slider_a_question_and_all_their_lines(front_end: str, private_place: Path) -> None:
    """The plot is there, the kernel knows where the slider was moved to and what was answered, and no line of many is
    missing or there twice.
    """
    cells = (PLOT, SLIDER, "print('it is at', slider.value)", "print('hello', input('Who? '))", LINES)
    async with open_document(private_place, *cells, front_end=front_end) as (notebook, server, _):
        page = notebook.page
        await notebook.run(0)
        width = await page.wait_for("(document.querySelector('.jp-RenderedImage img') || {}).naturalWidth")
        await notebook.run(1)
        await notebook.wait_done(1)
        await page.drag("document.querySelector('.widget-slider .noUi-handle')", MUCH)
        await page.wait_for("document.querySelector('.widget-readout').innerText === '10'")
        await notebook.run(2)
        await notebook.wait_text(2, "it is at")
        await notebook.run(3)
        await page.focus("document.querySelector('input.jp-Stdin-input')")
        await page.type("Ada")
        await page.press(ENTER)
        await notebook.wait_text(3, "hello Ada")
        await notebook.run(4)
        await notebook.wait_done(4)
        position, lines = await notebook.text_of(2), await notebook.text_of(4)
        names = [session.request.display_name for session in server.sessions]

    assert width > 100
    assert position == "it is at 10\n"
    assert lines.split() == list(map(str, range(20_000)))
    assert names == ["Python 3 (ipykernel)"]


async def test_endless_cell_is_interrupted_and_the_kernel_restarted(private_place: Path) -> None:
    """With the buttons of the toolbar; a restarted kernel counts from one, knows nothing, and works."""
    cells = ("import time\nprint('on')\nwhile True:\n    time.sleep(0.1)", "'on' in dir(), 'time' in dir()")
    async with open_document(private_place, *cells) as (notebook, server, _):
        await notebook.run(0)
        await notebook.wait_text(0, "on")
        await notebook.press_button("interrupt")
        await notebook.wait_text(0, "KeyboardInterrupt")
        await notebook.wait_done(0)
        await notebook.press_button("restart")
        await notebook.page.click("document.querySelector('.jp-Dialog .jp-mod-accept')")
        await notebook.page.wait_for(f"{KERNEL}.status !== 'idle'")
        await notebook.wait_connected()
        await notebook.run(1)
        await notebook.wait_text(1, "(False, False)")
        prompt = await notebook.page.evaluate("document.querySelectorAll('.jp-InputPrompt')[1].innerText")
        count = len(server.sessions)

    assert prompt == "[1]:"
    assert count == 1


async def test_output_of_a_long_cell_is_whole_though_the_gateway_is_cut_off(private_place: Path) -> None:
    """No line is missing; what it had not confirmed in that very moment may be there twice, in one piece."""
    async with open_document(private_place, NUMBERS) as (notebook, _, proxy):
        await notebook.run(0)
        await notebook.wait_text(0, "\n500\n")
        # Of the gateway's connections those that last are WebSockets.
        for connection in proxy.connections:
            connection.cut(Ending.RESET)
        await notebook.wait_done(0)
        lines = [int(line) for line in (await notebook.text_of(0)).split()]

    steps = [line for line, after in pairwise(lines) if after <= line]
    assert len(steps) <= 1
    assert sorted(set(lines)) == list(range(3000))
    assert len(lines) - 3000 < MOST_TWICE


async def test_page_that_is_loaded_anew_finds_its_kernel_at_work(private_place: Path) -> None:
    """The cell goes on, nothing of it is lost, and what is asked next is answered."""
    numbers = "import time\nfor number in range(300):\n    print(number)\n    time.sleep(0.03)\nprint('end')"
    async with open_document(private_place, numbers, "number") as (notebook, server, _):
        (session,) = server.sessions
        await notebook.run(0)
        await notebook.wait_text(0, "\n20\n")
        await notebook.page.reload()
        await notebook.page.wait_for(f"((it) => it && it.connectionStatus === 'connected')({KERNEL})")
        await notebook.run(1)
        await notebook.wait_text(1, "299")
        (entry, _) = session.conversation.history.entries()
        sessions = server.sessions

    assert sessions == [session]
    assert entry.output.split() == [*map(str, range(300)), "end"]
