"""A Chromium without a screen, by its DevTools protocol: just enough of it to use a page as a person does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

OPTIONS = (
    *("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--window-size=1200,1600"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync"),
    *("--remote-debugging-port=0", "about:blank"),
)

MARK = b"DevTools listening on "
"""What it says when it is there, before the address."""

LARGEST_MESSAGE = 1 << 26

PATIENCE = 60.0
"""Seconds for a page to become what a test waits for; on a busy machine JupyterLab alone takes twenty to load."""

ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
SHIFT = 8

WAIT = """new Promise((resolve) => {
  const look = () => { const found = %s; found ? resolve(found) : setTimeout(look, 20); };
  look();
})"""
"""A page has no event for "this has become true"."""

MIDDLE = """((element) => {
  if (!element) return null;
  element.scrollIntoView({block: "nearest"});
  const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
  return element.contains(document.elementFromPoint(x, y)) ? [x, y] : null;
})(%s)"""
"""Where an element can be clicked; null while it is not there, or something lies above it."""


def find_chromium() -> str | None:
    """Return the program, or None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class PageError(Exception):
    """What is asked of a page is refused, or fails there."""


class Page:
    """A tab of a browser."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.session: dict[str, str] = {}
        """How the DevTools know which tab is meant."""
        self._socket = socket
        self._latest = 0
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}

    async def listen(self) -> None:
        """Hand out the answers, and say yes to a page that asks whether one really wants to leave it."""
        while True:
            message = json.loads(await self._socket.get_message())
            if (number := message.get("id")) in self._waiting:
                self._waiting.pop(number).send_nowait(message)
            elif message.get("method") == "Page.javascriptDialogOpening":
                await self._send("Page.handleJavaScriptDialog", {"accept": True})

    async def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._latest += 1
        number = self._latest
        request = {"id": number, "method": method, "params": parameters, **self.session}
        await self._socket.send_message(json.dumps(request))
        return number

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol.

        Raises:
            PageError: It is refused.
        """
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[self._latest + 1] = send
        await self._send(method, parameters)
        answer = await receive.receive()
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript is, or what its promise becomes.

        Raises:
            PageError: It throws, or the page goes away meanwhile.
        """
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise PageError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and return it. A page that is loaded meanwhile is asked anew."""
        with trio.move_on_after(PATIENCE):
            while True:
                try:
                    return await self.evaluate(WAIT % expression)
                except PageError as error:
                    if "context was destroyed" not in str(error) and "navigated or closed" not in str(error):
                        raise
        shown = await self.evaluate("document.body.innerText")
        raise AssertionError(f"{expression} does not become true; the page shows:\n{shown}")

    async def go(self, url: str) -> None:
        """Open an address."""
        await self.call("Page.navigate", url=url)

    async def reload(self) -> None:
        """Load the page anew, and wait until it is another one."""
        await self.evaluate("window.isOld = true")
        await self.call("Page.reload")
        await self.wait_for("!window.isOld")

    async def click(self, element: str) -> None:
        """Click with the mouse in the middle of an element, once it is there.

        Args:
            element: An expression for it.
        """
        await self.drag(element, 0)

    async def drag(self, element: str, right: int) -> None:
        """Drag an element so many pixels to the right, once it is there."""
        x, y = await self.wait_for(MIDDLE % element)
        mouse = partial(self.call, "Input.dispatchMouseEvent", y=y, button="left", buttons=1, clickCount=1)
        await mouse(type="mousePressed", x=x)
        if right:
            await mouse(type="mouseMoved", x=x + right)
        await mouse(type="mouseReleased", x=x + right)

    async def focus(self, element: str) -> None:
        """Click on an element and wait until what is typed goes to it."""
        await self.click(element)
        await self.wait_for(f"{element}.contains(document.activeElement)")

    async def type(self, text: str) -> None:
        """Type text where the cursor is."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: dict[str, Any], modifiers: int = 0) -> None:
        """Press a key."""
        await self.call("Input.dispatchKeyEvent", type="keyDown", modifiers=modifiers, **key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **key)


async def _address_of(process: trio.Process) -> str:
    """Return the address that a Chromium prints; what it prints afterwards is thrown away by `_drain`."""
    said = b""
    assert process.stderr is not None
    while MARK not in said or not said.endswith(b"\n"):
        data = await process.stderr.receive_some()
        assert data, f"Chromium ended: {said.decode(errors='replace')}"
        said += bytes(data)
    return said.partition(MARK)[2].split()[0].decode()


async def _drain(process: trio.Process) -> None:
    assert process.stderr is not None
    async for _ in process.stderr:
        pass


@asynccontextmanager
async def open_page(program: str, place: Path) -> AsyncIterator[Page]:
    """Run a Chromium and open a tab in it; both are gone at the end.

    Args:
        program: Chromium.
        place: A directory for all that it writes.
    """
    # As root, as in a container, it does not start with its sandbox.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [program, *sandbox, f"--user-data-dir={place / 'profile'}", *OPTIONS]
    run = partial(
        trio.run_process, command, env={**os.environ, "HOME": str(place)}, check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        process = await nursery.start(run)
        address = await _address_of(process)
        nursery.start_soon(_drain, process)
        async with open_websocket_url(address, max_message_size=LARGEST_MESSAGE) as socket:
            page = Page(socket)
            nursery.start_soon(_listen, page)
            targets = (await page.call("Target.getTargets"))["targetInfos"]
            target = next(each["targetId"] for each in targets if each["type"] == "page")
            attached = await page.call("Target.attachToTarget", targetId=target, flatten=True)
            page.session = {"sessionId": attached["sessionId"]}
            await page.call("Page.enable")
            yield page
            page.session = {}
            await page.call("Browser.close")
        await process.wait()
        nursery.cancel_scope.cancel()


async def _listen(page: Page) -> None:
    try:
        await page.listen()
    except ConnectionClosed:
        # Chromium has ended.
        pass
