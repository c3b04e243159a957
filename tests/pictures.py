"""Take the pictures of the dashboard that are in docs/: from the real page, with real kernels, in both themes.

``python tests/pictures.py`` writes them into docs/how-to/pictures; it takes a minute, and needs Chromium and ipykernel.
"""

from __future__ import annotations

import base64
import tempfile
from contextlib import suppress
from pathlib import Path

import trio

from chromium import Page, find_chromium, open_page
from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from kallichore.errors import KernelDiedError
from kallichore.models.bodies import NewSession
from kernels import ipykernel_argv

PLACE = Path(__file__).parents[1] / "docs" / "how-to" / "pictures"

ANALYSIS = """
import time
frame = bytearray(150_000_000)
while True:
    sum(range(300_000))
    time.sleep(0.004)
"""
REPORT = """
import time
pages = []
while True:
    pages.append(bytearray(3_000_000))
    sum(range(4_000_000))
    time.sleep(0.5)
"""
WORK = {
    "analysis": f"# Fit the models of chapter 3\n{ANALYSIS}",
    "nightly-report": f"# Render the pages of 2026\n{REPORT}",
    "teaching": "6 * 7",
    "sketch": "import math\nmath.pi",
}
"""What runs in the sessions of the list."""

NAME = "Python 3 (ipykernel)"

SAMPLES_FOR = 45.0
"""Seconds for which the plots grow."""

PLOT = """
print("Fitting 3 models")
from IPython.display import HTML, SVG, display
rows = [("linear", 0.812, 12), ("spline", 0.934, 48), ("forest", 0.951, 930)]
cells = "".join(f"<tr><th>{n}</th><td>{s:.3f}</td><td>{t} ms</td></tr>" for n, s, t in rows)
display(HTML(f"<table><thead><tr><th></th><th>score</th><th>time</th></tr></thead><tbody>{cells}</tbody></table>"))
"""
CURVE = """
import math
line = " ".join(f"{x * 4},{60 - 45 * math.sin(x / 9) * math.exp(-x / 90):.1f}" for x in range(120))
curve = f'<polyline points="{line}" fill="none" stroke="#5b4bdb" stroke-width="2.5"/>'
SVG(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 120" width="480">{curve}</svg>')
"""


async def picture(page: Page, name: str, *, dark: bool, width: int = 1280, height: int = 800) -> None:
    """Write one picture of what the page shows."""
    theme = "dark" if dark else "light"
    features = [{"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    await page.call("Emulation.setEmulatedMedia", features=features)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    await page.call("Emulation.setDeviceMetricsOverride", **size)
    # Two frames: one for the new size, one for what the page makes of it.
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")
    shot = await page.call("Page.captureScreenshot", format="png")
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / f"{name}-{theme}.png").write_bytes(base64.b64decode(shot["data"]))


async def begin_work(server: RunningServer, nursery: trio.Nursery, directory: Path) -> None:
    """Start the sessions, and what runs in them."""
    for name, code in WORK.items():
        session = server.create_session(
            NewSession(
                session_id=name, argv=ipykernel_argv(), display_name=NAME, language="python",
                working_directory=str(directory),
            )
        )  # fmt: skip
        await session.start()
        nursery.start_soon(session.run, code)
    await server.server.session("teaching").run("answer = 6 * 7\nprint('The answer is', answer)")
    dead = server.create_session(
        NewSession(session_id="import-2026", argv=ipykernel_argv(), display_name=NAME, language="python")
    )
    await dead.start()
    with suppress(KernelDiedError):
        await dead.run("import os\nos.kill(os.getpid(), 9)")


async def main() -> None:
    """Take them all."""
    program = find_chromium()
    assert program is not None, "there is no Chromium here"
    with tempfile.TemporaryDirectory() as place:
        async with serve(ServerConfig(token="t0ken")) as server, trio.open_nursery() as nursery:
            await begin_work(server, nursery, Path(place))
            async with open_page(program, Path(place)) as page:
                await page.go(f"{server.address}/#token=t0ken")
                await page.wait_for("document.querySelectorAll('tbody tr').length === 5")
                await trio.sleep(SAMPLES_FOR)
                await take_list(page)
                await page.evaluate("location.hash = '#/session/sketch'")
                await run_in_page(page, PLOT)
                await run_in_page(page, CURVE)
                await run_in_page(page, "1 / 0")
                await take_both(page, "session", height=1000)
                await page.evaluate("location.hash = '#/session/import-2026'")
                await page.wait_for("document.querySelector('.banner.bad')")
                await take_both(page, "died", height=700)
            nursery.cancel_scope.cancel()


async def take_list(page: Page) -> None:
    """Take the list, wide and narrow."""
    await take_both(page, "list", height=660)
    for dark in (False, True):
        await picture(page, "phone", dark=dark, width=390, height=844)


async def take_both(page: Page, name: str, height: int) -> None:
    """Take a picture in both themes."""
    for dark in (False, True):
        await picture(page, name, dark=dark, height=height)


async def run_in_page(page: Page, code: str) -> None:
    """Run code as a person does, and wait until it is done."""
    before = await page.evaluate("document.querySelectorAll('article').length")
    await page.focus("document.querySelector('#code:enabled')")
    await page.type(code.strip())
    await page.click("document.querySelector('.entry .solid')")
    done = "!document.querySelector('.running')"
    await page.wait_for(f"document.querySelectorAll('article').length > {before} && {done}")
    # A frame tells its height when it is there.
    await trio.sleep(1)


if __name__ == "__main__":
    trio.run(main)
