"""A session's whole life, driven by a client whose server is killed again and again, and what has to come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio

from durable.servers import Servers
from kallichore.client.api_client import ApiClient, ApiError
from kallichore.client.channel_client import ChannelClient, make_execute_request, make_message, open_channel
from kallichore.client.websocket import ChannelClosedError
from kallichore.errors import KallichoreError
from kernels import REAL_TIME, body, is_kernel, is_type

MOST_DEATHS = 6
"""Servers that may die in one life: each may be told to once, and what follows has none to go."""

LINES = 60

CODES = {
    "first": f"print begins\nflood {LINES} 100\nstdout printed\nstderr complained\nprint ends",
    "one": "print one",
    "two": f"flood {LINES} 100",
    "three": "print three",
    "asks": "input name?",
}
"""What is executed by the first kernel, by the name that each message has."""

AFTER_RESTART = {"again": "print again", "last": "stdout gone\nexit 3"}
"""What is executed by the second."""


@attrs.define
class Life:
    """What a client does with one session, and hears of it, over all the servers that it takes.

    Args:
        servers: Where the session is.
        is_numbered: Whether the client names the last number that it has when it comes back.
        members: More of the session.
    """

    servers: Servers
    is_numbered: bool
    members: dict[str, Any] = attrs.field(factory=dict)
    ids: dict[str, str] = attrs.field(factory=dict)
    """Of the requests, by their names."""
    messages: list[dict[str, Any]] = attrs.field(factory=list)
    """What was heard; where it is numbered, each once and in order."""
    problems: list[str] = attrs.field(factory=list)
    deaths: int = 0
    _last: int = 0
    _heard: set[str] = attrs.field(factory=set)
    _first_pid: int | None = None
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, faults: Sequence[Sequence[str]]) -> None:
        """Go through all of it, with servers of which each dies at another fault, and the last does not."""
        faults_left = list(faults)
        while True:
            client = await self.servers.start(fault=faults_left.pop(0) if faults_left else ())
            if client is not None:
                try:
                    await self._go_on(client)
                except* (ChannelClosedError, KallichoreError, OSError) as errors:
                    failure: BaseException = errors
                else:
                    return
                with trio.move_on_after(2):
                    await self.servers.wait()
                if self.servers.lives:
                    raise failure
            await self.servers.wait()
            self.deaths += 1
            assert self.deaths <= MOST_DEATHS, self.servers.log[-4000:]

    # What it does: each step looks at how far it came before

    async def _go_on(self, client: ApiClient) -> None:
        with trio.fail_after(REAL_TIME):
            if await self._session(client) is None and not self._is_over:
                await client.call("PUT", "/sessions", body(**self.members))
            if not self._is_over:
                await self._start(client)
                await self._attend(client)
            await self._delete(client)

    @property
    def _is_over(self) -> bool:
        return any(message.get("exited") == 3 for message in self.messages)

    async def _attend(self, client: ApiClient) -> None:
        since = self._last if self.is_numbered else None
        async with open_channel(client.address, "s", since=since) as channel, trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, channel)
            # Each alone, then three at once.
            await self._execute(client, channel, CODES, ["first"])
            await self._execute(client, channel, CODES, ["one", "two", "three"])
            await self._execute(client, channel, CODES, ["asks"])
            await self._restart(client)
            await self._execute(client, channel, AFTER_RESTART, ["again"])
            await self._execute(client, channel, AFTER_RESTART, ["last"], self._has_exited)
            nursery.cancel_scope.cancel()

    async def _has_exited(self, _name: str) -> bool:
        return self._is_over

    async def _session(self, client: ApiClient) -> dict[str, Any] | None:
        try:
            session: dict[str, Any] = await client.call("GET", "/sessions/s")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return session

    async def _start(self, client: ApiClient) -> None:
        while True:
            session = await self._session(client)
            assert session is not None
            if session["status"] in ("uninitialized", "exited"):
                if (session.get("last_exit") or {}).get("exit_code") == 3:
                    return
                await self._ask_for(client, "start")
            elif session["status"] != "starting":
                return
            await trio.sleep(0.01)

    async def _restart(self, client: ApiClient) -> None:
        session = await self._session(client)
        assert session is not None
        self._first_pid = self._first_pid or session.get("process_id")
        if session.get("process_id") == self._first_pid:
            await self._ask_for(client, "restart")
        while (session := await self._session(client)) and (
            session.get("process_id") in (None, self._first_pid) or session["status"] == "starting"
        ):
            if session["status"] == "exited":
                await self._ask_for(client, "start")
            await trio.sleep(0.01)

    async def _ask_for(self, client: ApiClient, what: str) -> None:
        """Ask for a start or a restart; one that the server before was asked for may be under way."""
        try:
            await client.call("POST", f"/sessions/s/{what}")
        except ApiError as error:
            if "already" not in str(error):
                raise

    async def _execute(
        self,
        client: ApiClient,
        channel: ChannelClient,
        codes: dict[str, str],
        names: Sequence[str],
        is_done: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        for name in names:
            if name not in self.ids or not await self._is_known(client, self.ids[name], codes[name]):
                request = make_execute_request(codes[name], allow_stdin=True)
                # Who does not know whether a request came asks, and sends it again if it did not, as it was.
                request["header"]["msg_id"] = self.ids.setdefault(name, request["header"]["msg_id"])
                await channel.send(request)
        for name in names:
            while not (self._is_done(name) if is_done is None else await is_done(name)):
                changed = self._changed
                await self._answer(channel)
                await changed.wait()

    async def _is_known(self, client: ApiClient, msg_id: str, code: str) -> bool:
        if any((message.get("parent_header") or {}).get("msg_id") == msg_id for message in self.messages):
            return True
        session = await self._session(client)
        assert session is not None
        queue = session["execution_queue"]
        waiting = [queue.get("active"), *queue.get("pending", ())]
        history = await client.call("GET", "/sessions/s/history")
        return msg_id in str(waiting) or any(entry["input"] == code for entry in history)

    async def _answer(self, channel: ChannelClient) -> None:
        """Answer the kernel's question, once it is open; again to a server that does not have the answer."""
        asked = [message for message in self.messages if is_type("input_request")(message)]
        if asked and "asks" in self.ids and not self._is_done("asks") and "answered" not in self._heard:
            self._heard.add("answered")
            await channel.send(make_message("input_reply", {"value": "Ada", "status": "ok"}, "stdin"))

    async def _delete(self, client: ApiClient) -> None:
        session = await self._session(client)
        while session is not None:
            if session["status"] == "exited":
                try:
                    await client.call("DELETE", "/sessions/s")
                except ApiError as error:
                    if error.status not in (404, 409):
                        raise
            await trio.sleep(0.01)
            session = await self._session(client)

    # What it hears

    async def _listen(self, channel: ChannelClient) -> None:
        while True:
            self._take(await channel.receive())
            self._changed.set()
            self._changed = trio.Event()

    def _take(self, message: dict[str, Any]) -> None:
        if "sessionState" in message:
            if message["sessionState"]["input_request"]:
                # Still open: what was said to the server before did not come.
                self._heard.discard("answered")
            return
        if self.is_numbered:
            if message["seq"] != self._last + 1:
                self.problems.append(f"{message['seq']} came behind {self._last}")
            self._last = message["seq"]
        elif message["kind"] == "jupyter":
            if is_type("input_request")(message):
                self._heard.discard("answered")
            if message["header"]["msg_id"] in self._heard:
                return
            self._heard.add(message["header"]["msg_id"])
        self.messages.append(message)

    def _is_done(self, name: str) -> bool:
        return self.count("idle", name) > 0 and self.count("execute_reply", name) > 0

    def count(self, what: str, name: str) -> int:
        """Return how many messages of a type, or telling a status, are about a request."""
        found = 0
        for message in self.messages:
            parent = message.get("parent_header") or {}
            if message["kind"] != "jupyter" or parent.get("msg_id") != self.ids.get(name, ""):
                continue
            if message["header"]["msg_type"] == what or message["content"].get("execution_state") == what:
                found += 1
        return found

    def texts(self, name: str) -> str:
        """Return what a request printed, in the order in which it was heard."""
        check = is_type("stream", self.ids.get(name, "none"))
        return "".join(message["content"]["text"] for message in self.messages if check(message))

    def printed(self) -> list[str]:
        """Return what the kernels' processes printed."""
        lines = [message["output"][1] for message in self.messages if "output" in message]
        own = [line for line in lines if not line.startswith("[kallichore]")]
        # These have no id by which a client that has no numbers would know that it had one already.
        return own if self.is_numbered else list(dict.fromkeys(own))

    def exits(self) -> list[int]:
        """Return the exit codes that were told."""
        return [message["exited"] for message in self.messages if is_kernel("exited")(message)]


def outline(life: Life) -> dict[str, Any]:
    """Return what was heard, in short: the same whatever died meanwhile."""
    ran = {name: (life.count("execute_reply", name), life.count("idle", name)) for name in [*CODES, *AFTER_RESTART]}
    return {
        "problems": life.problems,
        "ran": ran,
        "texts": {name: life.texts(name) for name in ran},
        "printed": sorted(line.strip() for line in life.printed()),
    }


def flood() -> str:
    """Return what a flood of the scripted kernel says."""
    return "".join(f"{number} " + "x" * 100 for number in range(LINES))


EXPECTED = {
    "problems": [],
    "ran": dict.fromkeys([*CODES, *AFTER_RESTART], (1, 1)),
    "texts": {
        "first": f"begins\n{flood()}ends\n",
        "one": "one\n",
        "two": flood(),
        "three": "three\n",
        "asks": "Ada\n",
        "again": "again\n",
        "last": "",
    },
    "printed": ["complained", "gone", "printed"],
}
