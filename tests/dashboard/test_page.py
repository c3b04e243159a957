"""The dashboard in a browser, used as people use it."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

import pytest

from axe import violations
from browsing import TOKEN, Browsing, browse
from chromium import ENTER, SHIFT, Page, find_chromium
from kallichore.errors import StartupError
from kallichore.models.bodies import Attribution, ExecuteRequest, NewSession, ResourceUsage
from kallichore.session.execute_call import execute_code
from kernels import ipykernel_argv, scripted

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here"),
]

ESCAPE = {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27}
TAB = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
DOWN = {"key": "ArrowDown", "code": "ArrowDown", "windowsVirtualKeyCode": 40}
UP = {"key": "ArrowUp", "code": "ArrowUp", "windowsVirtualKeyCode": 38}

ROWS = "document.querySelectorAll('tbody tr')"


def python(session_id: str = "p") -> NewSession:
    """Return a request for a session with a Python kernel."""
    return NewSession(session_id=session_id, argv=ipykernel_argv(), display_name="Python 3", language="python")


# Logging in


async def test_address_logs_in_and_the_token_is_in_it_no_more() -> None:
    """The token of the fragment is taken for this tab, and is then neither in the address nor in the history."""
    async with browse() as browsing:
        await browsing.open_list()
        shown = await browsing.page.evaluate("location.href")
        kept = await browsing.page.evaluate("Object.values({...sessionStorage})")
        elsewhere = await browsing.page.evaluate("[Object.keys({...localStorage}).length, document.cookie]")
        entries = (await browsing.page.call("Page.getNavigationHistory"))["entries"]
        await browsing.page.reload()
        await browsing.page.wait_for("document.querySelector('.link-state.live')")

    assert (browsing.url, [TOKEN], [0, ""]) == (shown, kept, elsewhere)
    assert [] == [entry["url"] for entry in entries if "token" in entry["url"]]


async def test_wrong_token_leads_to_a_form_that_takes_the_right_one() -> None:
    """Who has none is told where to find it; a wrong one is refused in words; the right one opens the page."""
    async with browse() as browsing:
        page = browsing.page
        await page.go(browsing.url)
        await browsing.wait_text("bearer_token")
        was_reproached = await page.evaluate("document.querySelector('[role=alert]') !== null")
        for token in ("wrong", TOKEN):
            await page.focus("document.querySelector('#token')")
            await page.evaluate("document.querySelector('#token').select()")
            await page.type(token)
            await browsing.click("Open")
            if token == "wrong":
                await page.wait_for("document.querySelector('[role=alert]')?.innerText.includes('does not know')")
        await page.wait_for("document.querySelector('.link-state.live')")

    assert not was_reproached


# The list


async def test_kernel_is_started_from_what_is_installed() -> None:
    """A kernel is chosen, named and started, and its page opens with a line for code."""
    async with browse() as browsing:
        page = browsing.page
        await browsing.open_list()
        await browsing.click("Start a kernel")
        await page.wait_for("document.querySelector('#start-kernel option')")
        await page.evaluate("document.querySelector('#start-kernel').value = 'python3'")
        await page.focus("document.querySelector('#start-name')")
        await page.type("my work")
        await browsing.click("Start", "dialog .row")
        await page.wait_for("document.querySelector('#code:enabled')")
        title = await page.evaluate("document.title")
        started = [session.session_id for session in browsing.server.sessions]

    assert ("my work – Kallichore", ["my work"]) == (title, started)


async def test_what_a_kernel_uses_is_drawn() -> None:
    """Memory and CPU are there as numbers, and the plot goes on with each sample."""
    line = "document.querySelector('tbody .c-memory polyline').getAttribute('points')"
    async with browse(resource_sample_interval_ms=200) as browsing:
        session = browsing.server.create_session(scripted())
        await session.start()
        await browsing.open_list()
        await browsing.page.wait_for(f"({line} ?? '').split(' ').length > 1")
        before = await browsing.page.evaluate(line)
        await browsing.page.wait_for(f"{line} !== {json.dumps(before)}")
        memory = await browsing.page.evaluate("document.querySelector('tbody .c-memory').innerText")

    assert memory.strip().endswith("B")


async def test_plots_begin_before_the_page_did() -> None:
    """What was sampled while somebody else watched is drawn on opening, of each session and of all together."""
    async with browse(resource_sample_interval_ms=0) as browsing:
        session = browsing.server.create_session(scripted())
        await session.start()
        now = round(time.time() * 1000)
        for seconds in range(100, 0, -10):
            session.note_usage(
                ResourceUsage(
                    cpu_percent=seconds, memory_bytes=seconds * 10**6, thread_count=1, sampling_period_ms=1000,
                    timestamp=now - seconds * 1000,
                )
            )  # fmt: skip
        await browsing.open_list()
        for place in ("tbody .c-memory", "tbody .c-cpu", ".card"):
            points = f"(document.querySelector('{place} polyline')?.getAttribute('points') ?? '').split(' ')"
            # From one edge to the other, with fewer points than the page alone would have by then.
            await browsing.page.wait_for(f"parseFloat({points}[0]) < 1 && {points}.length < 30")


async def test_hundred_sessions_are_sorted_and_filtered_and_several_are_acted_on() -> None:
    """Of a hundred sessions those that fit are shown, in the order that is asked for, and are deleted together."""
    async with browse() as browsing:
        page = browsing.page
        for number in range(100):
            browsing.server.create_session(scripted(f"s{number:02}"))
        await browsing.open_list()
        await page.wait_for(f"{ROWS}.length === 100")
        await browsing.click("Session", "thead")
        await page.wait_for(f"{ROWS}[0].innerText.includes('s99')")
        await page.focus("document.querySelector('#filter')")
        await page.type("s4")
        await page.wait_for(f"{ROWS}.length === 10")
        total = await page.evaluate("document.querySelector('tfoot th').innerText")
        await page.click("document.querySelector('thead input')")
        await browsing.click("Delete", ".picked")
        await browsing.click("Delete", "dialog")
        await page.wait_for(f"{ROWS}.length === 0")
        left = len(browsing.server.sessions)

    assert ("10 of 100 sessions", 90) == (total, left)


async def test_two_pages_show_the_same() -> None:
    """What is done in one page is seen in another."""
    async with browse() as browsing, browse() as other:
        second = Browsing(browsing.server, other.page)
        await browsing.open_list()
        await second.open_list()
        browsing.server.create_session(scripted("seen by both"))
        for each in (browsing, second):
            await each.wait_text("seen by both")


async def test_page_works_below_a_path() -> None:
    """Where a proxy has put the server below a path, the list, a session's channels and what it says are there."""
    async with browse(base_url="/user/me") as browsing:
        await browsing.open_started(scripted())
        await browsing.run("print below")
        await browsing.page.wait_for("document.querySelector('.outputs pre')?.innerText.trim() === 'below'")


# One session


async def test_code_is_run_and_its_output_is_rich() -> None:
    """Text, errors with colours, pictures, JSON, tables and HTML are shown as what they are."""
    async with browse() as browsing:
        page = browsing.page
        await browsing.open_started(python())
        await browsing.run("print('plain')")
        await page.wait_for("document.querySelector('.outputs pre')?.innerText.trim() === 'plain'")
        await browsing.run("1 / 0")
        await page.wait_for("document.querySelector('.outputs .error span[class^=a-]')")
        await browsing.run("from IPython.display import *\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')")
        await page.wait_for("document.querySelector('img.picture')?.src.startsWith('data:image/svg+xml')")
        await browsing.run("display({'application/json': {'a': [1]}}, raw=True)")
        await page.wait_for("document.querySelector('pre.json')")
        await browsing.run("HTML('<div style=\"height: 222px\">high</div>')")
        await page.wait_for("document.querySelector('iframe')?.style.height === '222px'")
        counts = await page.evaluate("[...document.querySelectorAll('.prompt')].map((each) => each.innerText)")

    assert ["[1]", "[2]", "[3]", "[4]", "[5]"] == counts


async def test_question_of_a_kernel_is_answered() -> None:
    """input() shows its prompt and a line for the answer, which reaches the code."""
    async with browse() as browsing:
        await browsing.open_started(python())
        await browsing.run("print('Hello ' + input('Your name? '))")
        await browsing.page.wait_for("document.querySelector('.question label')?.innerText.includes('Your name?')")
        await browsing.page.focus("document.querySelector('#answer')")
        await browsing.page.type("Ada")
        await browsing.page.press(ENTER)
        await browsing.wait_text("Hello Ada")


async def test_loop_is_interrupted() -> None:
    """While code runs, its first line is shown, and a click interrupts it."""
    async with browse() as browsing:
        await browsing.open_started(python())
        await browsing.run("import time\nwhile True: time.sleep(0.01)")
        await browsing.page.wait_for("document.querySelector('.doing code')?.innerText === 'import time'")
        await browsing.click("Interrupt", ".session-head")
        await browsing.wait_text("KeyboardInterrupt")
        await browsing.page.wait_for("document.querySelector('.status.idle')")


async def test_killed_kernel_says_why_and_starts_again() -> None:
    """After a confirmed kill the page says how the kernel ended, and one that dies by itself is a warning."""
    async with browse() as browsing:
        page = browsing.page
        await browsing.open_started(scripted())
        await browsing.choose("Kill", ".session-head")
        await browsing.click("Kill", "dialog")
        await page.wait_for("document.querySelector('.status.exited')")
        await browsing.click("Start again", ".session-head")
        await page.wait_for("document.querySelector('#code:enabled')")
        await browsing.run("exit 3")
        await page.wait_for("document.querySelector('.banner.bad')?.innerText.includes('3')")
        told = await page.evaluate("document.querySelector('.toasts').innerText")

    assert "s has ended" in told


async def test_what_was_missed_comes_when_the_connection_is_back() -> None:
    """A page that was offline has, once it is back, all that was said meanwhile, each once."""
    async with browse() as browsing:
        page = browsing.page
        session = await browsing.open_started(scripted())
        await session.run("print before")
        await browsing.wait_text("before")
        await page.call("Network.enable")
        offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        # A stream that is open goes on in a browser that is made offline; a server that closes it does not.
        await page.call("Network.emulateNetworkConditions", offline=True, **offline)
        for slot in list(session.audience._slots):
            slot.leave("cut by the test")
        await browsing.wait_text("The connection to the session is lost")
        await session.run("print meanwhile")
        await page.call("Network.emulateNetworkConditions", offline=False, **offline)
        await browsing.wait_text("meanwhile")
        shown = "[...document.querySelectorAll('.outputs pre')]"
        texts = await page.evaluate(f"{shown}.map((each) => each.innerText.trim())")

    assert ["before", "meanwhile"] == texts


async def test_page_takes_nothing_from_the_sessions_client() -> None:
    """The client that has the session keeps it, and what was said while only the page was there is still owed to it."""
    async with browse() as browsing:
        session = await browsing.open_started(scripted())
        await session.run("print owed")
        await browsing.wait_text("owed")
        slot = session.attach()
        batch = slot.take_nowait()
        was_told = batch is not None and any(b"owed" in payload for payload in batch.payloads)
        clients = len(session.audience)
        session.detach(slot)

    assert (True, 2) == (was_told, clients)


async def test_code_that_runs_again_is_there_twice() -> None:
    """What ran before the page was there stays when the same code runs while it is."""
    texts = "[...document.querySelectorAll('.outputs pre')].map((each) => each.innerText.trim()).join()"
    async with browse() as browsing:
        session = browsing.server.create_session(scripted())
        await session.start()
        await session.run("print x")
        await browsing.open_list()
        await browsing.open_session("s")
        await browsing.page.wait_for(f"{texts} === 'x'")
        await session.run("print x")
        await browsing.page.wait_for(f"{texts} === 'x,x'")


async def test_what_agents_ran_bears_their_names() -> None:
    """Code that an agent had run is shown with its name, be it that it ran before the page was there."""
    names = "[...document.querySelectorAll('.code .agent')].map((each) => each.innerText).join()"

    async def run_as(agent: str) -> None:
        attribution = Attribution(source="agent", agent_name=agent)
        await execute_code(session, ExecuteRequest(code=f"print {agent}", attribution=attribution))

    async with browse() as browsing:
        session = browsing.server.create_session(scripted())
        await session.start()
        await run_as("Ada")
        await browsing.open_list()
        await browsing.open_session("s")
        await browsing.page.wait_for(f"{names} === 'by Ada'")
        await run_as("Bob")
        await browsing.page.wait_for(f"{names} === 'by Ada,by Bob'")


# People


async def test_all_can_be_done_with_the_keyboard() -> None:
    """A menu opens, moves, acts, asks and is left by keys alone, and the focus comes back to where it was."""
    active = "document.activeElement"
    is_menu = f"{active}.getAttribute('aria-haspopup') === 'menu'"
    is_item = f"{active}.getAttribute('role') === 'menuitem'"
    async with browse() as browsing:
        page = browsing.page

        async def press_until(key: dict[str, Any], holds: str) -> None:
            await page.press(key)
            await page.wait_for(holds)

        async def ask_for_deletion() -> None:
            await press_until(DOWN, is_item)
            await press_until(UP, f"{active}.innerText.startsWith('Delete')")
            await press_until(ENTER, f"{active}.innerText === 'Cancel'")

        browsing.server.create_session(scripted("only"))
        await browsing.open_list()
        await page.wait_for(f"{ROWS}.length === 1")
        for _ in range(40):
            if await page.evaluate(is_menu):
                break
            await page.evaluate(f"window.before = {active}; 0")
            await press_until(TAB, f"{active} !== window.before")
        await press_until(ENTER, is_item)
        await press_until(ESCAPE, is_menu)
        await ask_for_deletion()
        await press_until(ESCAPE, is_menu)
        await ask_for_deletion()
        await press_until(TAB, f"{active}.innerText === 'Delete'")
        await press_until(ENTER, f"{ROWS}.length === 0")
        left = browsing.server.sessions

    assert [] == left


async def test_keyboard_is_left_where_it_has_moved_on_to() -> None:
    """After a dialog the focus is where it was before, at once; who has moved on by when the page hears of it stays."""
    active = "document.activeElement"
    async with browse() as browsing:
        page = browsing.page
        session = browsing.server.create_session(scripted("only"))
        await session.start()
        await browsing.open_list()
        await browsing.choose("Kill")
        await page.wait_for(f"{active}.innerText === 'Cancel'")
        await page.evaluate("document.querySelector('dialog').close(); document.querySelector('#filter').focus()")
        await page.wait_for("!document.querySelector('dialog')")
        after_moving = await page.evaluate(f"{active}.id")
        await browsing.choose("Kill")
        await browsing.click("Kill", "dialog")
        await page.wait_for("!document.querySelector('dialog')")
        after_acting = await page.evaluate(f"{active}.getAttribute('aria-haspopup')")

    assert ("filter", "menu") == (after_moving, after_acting)


async def test_code_is_edited_and_brought_back_with_keys() -> None:
    """Shift and Enter begins a line, Enter runs, and the arrow brings back what ran."""
    async with browse() as browsing:
        page = browsing.page
        await browsing.open_started(python())
        await page.focus("document.querySelector('#code')")
        await page.type("a = 20")
        await page.press(ENTER, SHIFT)
        await page.type("print(a + 1)")
        await page.press(ENTER)
        await browsing.wait_text("21")
        await page.press(UP)
        again = await page.wait_for("document.querySelector('#code').value")

    assert "a = 20\nprint(a + 1)" == again


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_nothing_stands_in_anybodys_way(theme: str, width: int) -> None:
    """axe-core finds nothing wrong with the form, the list, a dialog, a menu, and the three views of a session."""
    found: dict[str, list[str]] = {}
    async with browse(resource_sample_interval_ms=200) as browsing:
        page = browsing.page
        look = partial(_look, page, found)
        await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        await page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
        )
        await page.go(browsing.url)
        await browsing.wait_text("bearer_token")
        await look("form")
        await browsing.server.create_session(scripted("s0")).start()
        with pytest.raises(StartupError):
            await browsing.server.create_session(scripted("s1", "exit-at-start=3")).start()
        await browsing.open_list()
        await page.wait_for(f"{ROWS}.length === 2")
        await look("list")
        sideways = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        await page.click("document.querySelector('tbody .menu button')")
        await page.wait_for("document.querySelector('[role=menu]')")
        await look("menu")
        await browsing.click("Shut down", ".menu-items")
        await page.wait_for("document.querySelector('dialog[open]')")
        await look("dialog")
        await browsing.click("Cancel", "dialog")
        await browsing.open_session("s0")
        await browsing.run("print x")
        await browsing.page.wait_for("document.querySelector('.outputs pre')")
        for view in ("Console", "Log", "Details"):
            await browsing.click(view, "[role=tablist]")
            await look(view)

    assert {} == {name: lines for name, lines in found.items() if lines}
    assert 0 == sideways


async def test_what_stands_in_the_way_would_be_found() -> None:
    """A picture without words for it, put into the page, is found."""
    async with browse() as browsing:
        await browsing.open_list()
        await browsing.page.evaluate("document.querySelector('main').append(new Image(9, 9))")
        found = await violations(browsing.page)

    assert ["image-alt"] == [line.split("(")[1].split(")")[0] for line in found]


async def _look(page: Page, found: dict[str, list[str]], name: str) -> None:
    found[name] = await violations(page)
