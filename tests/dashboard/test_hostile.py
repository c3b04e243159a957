"""What a kernel, a session's name or a kernelspec says cannot reach the page that shows it, nor its token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from browsing import TOKEN, Browsing, browse
from chromium import find_chromium
from kallichore.errors import KernelDiedError
from kallichore.models.bodies import NewSession
from kernels import ipykernel_argv, scripted, scripted_argv

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here"),
]

SCRIPT = "<img src=x onerror='window.isTaken = true'><script>window.isTaken = true</script>"
"""Taken for HTML, this would run in the page."""

TRIES = """
const tries = {
  "the page's storage": () => parent.sessionStorage.length,
  "its own storage": () => sessionStorage.length,
  "storage that stays": () => localStorage.length,
  "cookies": () => document.cookie,
  "the page's elements": () => parent.document.body.innerHTML,
  "the page's address": () => parent.location.href,
  "another page in place of it": () => { top.location = "http://127.0.0.1:1/taken"; return top.location.href; },
  "another window": () => open("about:blank") ?? (() => { throw new Error("none"); })(),
  "what else the page has": () => parent.isTaken,
};
let taken = 0;
for (const attempt of Object.values(tries)) {
  try { attempt(); taken += 1; } catch {}
}
const requests = [fetch("/status"), fetch(new URL("../../status", location.href)), fetch("/", {mode: "no-cors"})];
Promise.allSettled(requests).then(async (results) => {
  taken += 10 * results.filter((result) => result.status === "fulfilled").length;
  await new Promise((done) => {
    const image = new Image();
    image.onload = () => { taken += 100; done(); };
    image.onerror = done;
    image.src = new URL("icon.svg", location.href);
  });
  parent.postMessage("<img src=x onerror='window.isTaken = true'>", "*");
  parent.postMessage({ready: true, height: "9999px", isTaken: true}, "*");
  document.getElementById("told").style.height = `${200 + taken}px`;
});
"""
"""Each thing that succeeds makes the output higher, which is all that the page lets it say."""


async def _is_untouched(browsing: Browsing) -> bool:
    page = browsing.page
    address = await page.evaluate("location.href")
    kept = await page.evaluate("Object.values({...sessionStorage})")
    return bool(address.startswith(browsing.url)) and kept == [TOKEN] and not await page.evaluate("window.isTaken")


async def test_script_in_html_output_gets_nothing() -> None:
    """Scripts in HTML of a kernel run, and reach neither the page, nor a storage, the server or another machine."""
    html = f"<div id='told'></div><script>{TRIES}</script>"
    async with browse() as browsing:
        session = browsing.server.create_session(NewSession(session_id="p", argv=ipykernel_argv()))
        await session.start()
        await browsing.open_list()
        await browsing.open_session("p")
        await session.run(f"from IPython.display import HTML\nHTML({html!r})")
        await browsing.page.wait_for("parseInt(document.querySelector('iframe')?.style.height) >= 200")
        height = await browsing.page.evaluate("document.querySelector('iframe').style.height")
        is_untouched = await _is_untouched(browsing)

    assert ("200px", True) == (height, is_untouched)


async def test_output_that_navigates_itself_stays_here() -> None:
    """HTML that sends its frame to another address gets nowhere: what it knows stays in it."""
    elsewhere = "http://127.0.0.1:1/?told=secret"
    html = f"<p>x</p><script>location = {elsewhere!r}</script><meta http-equiv=refresh content='0;url={elsewhere}'>"
    async with browse() as browsing:
        session = browsing.server.create_session(NewSession(session_id="p", argv=ipykernel_argv()))
        await session.start()
        await browsing.open_list()
        note = "(event) => refused.push(event.blockedURI)"
        await browsing.page.evaluate(f"refused = []; addEventListener('securitypolicyviolation', {note})")
        await browsing.open_session("p")
        await session.run(f"from IPython.display import HTML\nHTML({html!r})")
        refused = await browsing.page.wait_for("refused.length && refused")
        is_untouched = await _is_untouched(browsing)

    assert {"http://127.0.0.1:1"} == {address.partition("/?")[0].rstrip("/") for address in refused}
    assert is_untouched


async def test_text_is_never_taken_for_html() -> None:
    """A script in printed text, in a traceback, in code, in a picture's words and in a question is shown as text."""
    async with browse() as browsing:
        session = browsing.server.create_session(NewSession(session_id="p", argv=ipykernel_argv()))
        await session.start()
        await browsing.open_list()
        await browsing.open_session("p")
        await session.run(f"print({SCRIPT!r})")
        await session.run(f"raise ValueError({SCRIPT!r})")
        await session.run(f"display({{'text/plain': {SCRIPT!r}, 'image/png': 'AAAA'}}, raw=True)")
        await session.run(f"display({{'text/markdown': {SCRIPT!r}}}, raw=True)")
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" onload="isTaken = true">{SCRIPT}</svg>'
        await session.run(f"display({{'image/svg+xml': {svg!r}}}, raw=True)")
        await browsing.run(f"input({SCRIPT!r})")
        await browsing.page.wait_for("document.querySelector('.question label')?.innerText.includes('onerror')")
        shown = await browsing.page.evaluate("document.body.innerText")
        is_untouched = await _is_untouched(browsing)

    assert shown.count(SCRIPT) >= 5
    assert is_untouched


async def test_names_are_never_taken_for_html() -> None:
    """Neither a session's name, nor its kernel's, nor its directory, nor how it ended, is more than text."""
    async with browse() as browsing:
        session = browsing.server.create_session(
            scripted(SCRIPT, display_name=SCRIPT, language=SCRIPT, notebook_uri=SCRIPT)
        )
        await session.start()
        await browsing.open_list()
        await browsing.wait_text(SCRIPT)
        await browsing.open_session(SCRIPT)
        with pytest.raises(KernelDiedError):
            await session.run("exit 3")
        await browsing.page.wait_for("document.querySelector('.banner')")
        await browsing.click("Details", "[role=tablist]")
        await browsing.page.wait_for("document.querySelector('.facts')?.innerText.includes('onerror')")
        is_untouched = await _is_untouched(browsing)

    assert is_untouched


async def test_kernelspec_is_never_taken_for_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernelspec's display name is text in the list of what can be started."""
    home = tmp_path / "kernels" / "evil"
    home.mkdir(parents=True)
    spec = {"argv": list(scripted_argv()), "display_name": f"</select>{SCRIPT}", "language": "x"}
    (home / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    async with browse() as browsing:
        await browsing.open_list()
        await browsing.click("Start a kernel")
        found = "[...document.querySelectorAll('#start-kernel option')].find((each) => each.value === 'evil')?.text"
        shown = await browsing.page.wait_for(found)
        is_untouched = await _is_untouched(browsing)

    assert (f"</select>{SCRIPT}", True) == (shown, is_untouched)


async def test_page_runs_no_script_that_is_not_a_file_of_the_server() -> None:
    """What got into the page all the same would not become a script: not as HTML, an attribute, text, or by eval."""
    async with browse() as browsing:
        browsing.server.create_session(scripted())
        await browsing.open_list()
        # Later, as the DevTools themselves may do what the page may not.
        await browsing.page.evaluate(
            """new Promise((done) => setTimeout(() => done([
                () => document.body.insertAdjacentHTML('beforeend', '<p>x</p>'),
                () => new Image().setAttribute('onerror', 'isTaken = true'),
                () => new Function('isTaken = true')(),
                () => { document.createElement('script').text = 'isTaken = true'; },
            ].forEach((attempt) => { try { attempt(); window.isTaken = true; } catch {} }))))"""
        )
        is_untouched = await _is_untouched(browsing)

    assert is_untouched
