"""A small Jupyter kernel that does as it is told, faults included. For tests; needs only pyzmq.

``python scripted_kernel.py FILE [--behaviour NAME[=VALUE]]...`` where FILE is a connection file, or a registration file
(JEP 66), for which the kernel binds ports of its own and registers.

Behaviours at the start:

==========================  ==========================================================================================
``exit-at-start=CODE``      print to stdout and stderr and exit before any socket is bound
``exit-before-info=CODE``   exit when kernel_info is asked for
``never-bind``              run without sockets
``deaf``                    bind the sockets and answer nothing, no heartbeat either
``silent-shell``            answer heartbeats, never kernel_info
``slow-info=SECONDS``       answer kernel_info late, and stay responsive otherwise
``burst=N``                 publish N streams before the kernel_info reply
``bad-first``               send a badly signed message on shell before the kernel_info reply
``no-iopub-status``         publish nothing for kernel_info
``prompts``                 report prompts in kernel_info
``ignore-shutdown``         answer a shutdown_request and go on
``hang-at-end``             answer a shutdown_request, fall silent and stay
``ignore-sigterm``          ignore SIGTERM
``misses-info=N``           do not see the first N requests for kernel_info
``parent=SHAPE``            parent headers are ``empty``, an ``id`` alone, or have null for a ``null-type``
``msg-id=number``           header ids are numbers
``signature=KIND``          signatures are ``upper`` case, made with a ``wrong`` key, or ``empty``
``no-metadata``             the metadata's frame is empty
``no-heart``                answer no heartbeat
``heart-rests``             answer heartbeats only while no code runs, as kernels with one thread
``short-queue``             queue as many messages as ZeroMQ does by itself, 1,000, and drop what is beyond
``never-register``          do not register (JEP 66)
``bad-registration``        register with a wrong signature first
==========================  ==========================================================================================

Code is one command a line; the words are in `COMMANDS` below.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

import zmq

DELIMITER = b"<IDS|MSG>"

SLEEP = (
    [sys.executable, "-S", "-c", "import sys, time; time.sleep(float(sys.argv[1]))"]
    if sys.platform == "win32"
    else ["sleep"]
)
"""A program that does nothing for as many seconds as its argument says."""


def own_ids() -> tuple[int, ...]:
    """Return the ids of this process, and of its group and session where there is such a thing."""
    return (os.getpid(),) if sys.platform == "win32" else (os.getpid(), os.getpgid(0), os.getsid(0))


class Interrupted(Exception):
    """The code was interrupted."""


class ScriptError(Exception):
    """The code asked for an error."""


class Kernel:
    """One kernel process."""

    def __init__(self, file: str, behaviours: dict[str, str]) -> None:
        self.behaviours = behaviours
        with open(file) as stream:
            self.info = json.load(stream)
        self.key = self.info["key"].encode()
        self.context = zmq.Context()
        self.count = 0
        self.interrupted = False
        self.hangs = False
        self.at_work = threading.Lock()
        self.first: dict[str, Any] = {}
        self.parent: dict[str, Any] = {}
        self.request: list[bytes] = []
        signal.signal(signal.SIGINT, self.on_sigint)
        if "ignore-sigterm" in behaviours:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if event := os.environ.get("JPY_INTERRUPT_EVENT"):
            threading.Thread(target=self.hear_event, args=[int(event)], daemon=True).start()

    def on_sigint(self, *_: object) -> None:
        self.interrupted = True

    def hear_event(self, event: int) -> None:
        """Be interrupted in Windows' way: the parent sets an event, of which this process has inherited a handle."""
        wait = ctypes.WinDLL("kernel32").WaitForSingleObject
        wait.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        while wait(event, 0xFFFFFFFF) == 0:
            self.on_sigint()

    # Wire

    def sign(self, parts: list[bytes]) -> bytes:
        return hmac.new(self.key, b"".join(parts), hashlib.sha256).hexdigest().encode()

    def signature(self, parts: list[bytes]) -> bytes:
        """Return what is sent for a signature."""
        match self.behaviours.get("signature"):
            case "upper":
                return self.sign(parts).upper()
            case "wrong":
                return self.sign([*parts, b"wrong"])
            case "empty":
                return b""
        return self.sign(parts)

    def header(self, msg_type: str) -> dict[str, Any]:
        return {
            "msg_id": 7 if "msg-id" in self.behaviours else uuid.uuid4().hex,
            "msg_type": msg_type,
            "session": "scripted",
            "username": "kernel",
            "date": "2026-01-01T00:00:00.000Z",
            "version": "5.3",
        }

    def parts(self, msg_type: str, content: Any, parent: dict[str, Any] | None = None) -> list[bytes]:
        metadata = b"" if "no-metadata" in self.behaviours else b"{}"
        parent = self.shaped(self.parent if parent is None else parent)
        documents = (self.header(msg_type), parent, metadata, content)
        return [document if isinstance(document, bytes) else json.dumps(document).encode() for document in documents]

    def shaped(self, parent: dict[str, Any]) -> dict[str, Any]:
        """Return a parent header as this kernel sends it."""
        match self.behaviours.get("parent"):
            case "empty":
                return {}
            case "id":
                return {"msg_id": parent.get("msg_id")}
            case "null-type":
                return {**parent, "msg_type": None}
        return parent

    def frames(self, parts: list[bytes], buffers: list[bytes] | None = None) -> list[bytes]:
        return [DELIMITER, self.signature(parts), *parts, *(buffers or [])]

    def publish(
        self, msg_type: str, content: Any, *, parent: dict[str, Any] | None = None, buffers: Any = None
    ) -> None:
        self.iopub.send_multipart([msg_type.encode(), *self.frames(self.parts(msg_type, content, parent), buffers)])

    def reply(self, msg_type: str, content: Any, *, socket: Any = None, parent: dict[str, Any] | None = None) -> None:
        identities = self.request[: self.request.index(DELIMITER)]
        target = self.shell if socket is None else socket
        target.send_multipart([*identities, *self.frames(self.parts(msg_type, content, parent))])

    def stream(self, text: str) -> None:
        self.publish("stream", {"name": "stdout", "text": text})

    # Life

    def bind(self) -> None:
        address = f"tcp://{self.info['ip']}"
        kinds = {
            "shell": zmq.ROUTER,
            "control": zmq.ROUTER,
            "stdin": zmq.ROUTER,
            "iopub": zmq.PUB,
            "hb": zmq.ROUTER,
        }
        ports = {}
        for name, kind in kinds.items():
            # The heartbeat's thread would keep the common context from ending.
            socket = (zmq.Context() if name == "hb" else self.context).socket(kind)
            socket.linger = 1000
            if "short-queue" not in self.behaviours:
                socket.sndhwm = 0
            port = self.info.get(f"{name}_port")
            if port:
                socket.bind(f"{address}:{port}")
            else:
                port = socket.bind_to_random_port(address)
            ports[f"{name}_port"] = port
            setattr(self, name, socket)
        if "registration_port" in self.info and "never-register" not in self.behaviours:
            self.register(ports)

    def register(self, ports: dict[str, int]) -> None:
        if "bad-registration" in self.behaviours:
            key, self.key = self.key, b"wrong"
            assert self.ask_registration(ports)[0] != b""
            self.key = key
        answer = self.ask_registration(ports)
        signature, *parts = answer[answer.index(DELIMITER) + 1 :]
        assert signature == self.sign(parts[:4]), "the reply is badly signed"
        assert json.loads(parts[3]) == {"status": "ok", "capabilities": {}}, parts[3]
        assert json.loads(parts[2]) == {}

    def ask_registration(self, ports: dict[str, int]) -> list[bytes]:
        with self.context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.connect(f"tcp://{self.info['ip']}:{self.info['registration_port']}")
            socket.send_multipart(self.frames(self.parts("handshake_request", ports)))
            return socket.recv_multipart()

    def beat(self) -> None:
        while True:
            try:
                frames = self.hb.recv_multipart()
                if self.hangs:
                    return
                with self.at_work if "heart-rests" in self.behaviours else contextlib.nullcontext():
                    pass
                self.hb.send_multipart(frames)
            except zmq.ZMQError:
                return

    def run(self) -> None:
        behaviours = self.behaviours
        if "exit-at-start" in behaviours:
            print("last words on stdout", flush=True)
            print("last words on stderr", file=sys.stderr, flush=True)
            os._exit(int(behaviours["exit-at-start"]))
        if "never-bind" in behaviours:
            while True:
                time.sleep(3600)
        self.bind()
        if "deaf" in behaviours:
            while True:
                time.sleep(3600)
        if "no-heart" not in behaviours:
            threading.Thread(target=self.beat, daemon=True).start()
        self.poller = zmq.Poller()
        self.poller.register(self.shell, zmq.POLLIN)
        self.poller.register(self.control, zmq.POLLIN)
        while True:
            ready = dict(self.poller.poll())
            if self.control in ready:
                self.on_control()
            elif self.shell in ready:
                self.on_request(self.shell)

    def take(self, socket: Any) -> dict[str, Any]:
        self.request = socket.recv_multipart()
        start = self.request.index(DELIMITER)
        assert self.request[start + 1] == self.sign(self.request[start + 2 : start + 6]), "badly signed"
        self.parent = json.loads(self.request[start + 2])
        self.raw_content = self.request[start + 5]
        self.content = json.loads(self.raw_content)
        return self.parent

    def on_control(self) -> None:
        """Serve a control request, perhaps in the middle of an execution: put everything back afterwards."""
        state = (self.parent, self.request, getattr(self, "content", None))
        header = self.take(self.control)
        if header["msg_type"] == "interrupt_request":
            self.interrupted = True
            self.publish("status", {"execution_state": "busy"})
            self.reply("interrupt_reply", {"status": "ok"}, socket=self.control)
            self.publish("status", {"execution_state": "idle"})
        elif header["msg_type"] == "shutdown_request":
            self.shut_down(self.control)
        else:
            self.on_other(header["msg_type"], self.control)
        self.parent, self.request, self.content = state

    def shut_down(self, socket: Any) -> None:
        self.reply("shutdown_reply", {"status": "ok", **self.content}, socket=socket)
        if "ignore-shutdown" in self.behaviours:
            return
        self.context.destroy(linger=1000)
        if "hang-at-end" in self.behaviours:
            self.hangs = True
            while True:
                time.sleep(3600)
        os._exit(0)

    def on_request(self, socket: Any) -> None:
        header = self.take(socket)
        msg_type = header["msg_type"]
        if msg_type == "kernel_info_request":
            self.on_kernel_info()
        elif msg_type == "execute_request":
            self.on_execute()
        elif msg_type == "shutdown_request":
            self.shut_down(socket)
        else:
            self.on_other(msg_type, socket)

    def on_other(self, msg_type: str, socket: Any) -> None:
        self.publish("status", {"execution_state": "busy"})
        if msg_type.endswith("_request"):
            self.reply(msg_type.replace("_request", "_reply"), {"status": "ok"}, socket=socket)
        self.publish("status", {"execution_state": "idle"})

    def on_kernel_info(self) -> None:
        behaviours = self.behaviours
        self.first = self.first or self.parent
        if int(behaviours.get("misses-info", 0)):
            behaviours["misses-info"] = str(int(behaviours["misses-info"]) - 1)
            return
        if "exit-before-info" in behaviours:
            os._exit(int(behaviours["exit-before-info"]))
        if "silent-shell" in behaviours:
            return
        if "slow-info" in behaviours:
            self.wait(float(behaviours["slow-info"]))
        if "no-iopub-status" not in behaviours:
            self.publish("status", {"execution_state": "busy"})
        for number in range(int(behaviours.pop("burst", 0))):
            self.stream(f"burst {number}\n")
        if "bad-first" in behaviours:
            identities = self.request[: self.request.index(DELIMITER)]
            parts = self.parts("kernel_info_reply", {"status": "forged"})
            self.shell.send_multipart([*identities, DELIMITER, b"0" * 64, *parts])
        language: dict[str, Any] = {"name": "script", "version": "1", "mimetype": "text/plain", "file_extension": ".s"}
        if "prompts" in behaviours:
            language["positron"] = {"input_prompt": "in> ", "continuation_prompt": "...> "}
        content = {
            "status": "ok",
            "protocol_version": "5.3",
            "implementation": "scripted",
            "banner": "",
            "help_links": [],
            "language_info": language,
        }
        self.reply("kernel_info_reply", content)
        if "no-iopub-status" not in behaviours:
            self.publish("status", {"execution_state": "idle"})

    def on_execute(self) -> None:
        self.count += 1
        self.interrupted = False
        self.skip: set[str] = set()
        self.outcome = ""
        if "no-status" not in self.content["code"].split("\n"):
            self.publish("status", {"execution_state": "busy"})
        self.publish("execute_input", {"code": self.content["code"], "execution_count": self.count})
        reply: dict[str, Any] = {"status": "ok", "execution_count": self.count}
        try:
            with self.at_work:
                for line in self.content["code"].splitlines():
                    word, _, rest = line.partition(" ")
                    COMMANDS[word](self, rest)
        except (Interrupted, ScriptError) as error:
            name = "KeyboardInterrupt" if isinstance(error, Interrupted) else "ScriptError"
            failure = {"ename": name, "evalue": str(error), "traceback": [f"{name}: {error}"]}
            self.publish("error", failure)
            reply = {"status": "error", "execution_count": self.count, **failure}
        reply["status"] = self.outcome or reply["status"]
        idle = lambda: self.publish("status", {"execution_state": "idle"})  # noqa: E731
        if "idle-first" in self.skip:
            idle()
        if "reply" not in self.skip:
            self.reply("execute_reply", reply)
        if "twice" in self.skip:
            self.reply("execute_reply", reply)
        if "idle-of-first" in self.skip:
            self.publish("status", {"execution_state": "idle"}, parent=self.first)
        elif not {"idle", "idle-first"} & self.skip:
            idle()

    def wait(self, seconds: float) -> None:
        """Sleep, but serve control meanwhile and end early if interrupted."""
        deadline = time.monotonic() + seconds
        poller = zmq.Poller()
        poller.register(self.control, zmq.POLLIN)
        while (left := deadline - time.monotonic()) > 0 and not self.interrupted:
            if poller.poll(min(left, 0.02) * 1000):
                self.on_control()
        if self.interrupted:
            raise Interrupted("interrupted")

    def nested(self, msg_type: str) -> None:
        """Serve another request inside this one, as code that waits for comm messages does."""
        outer, self.parent = self.parent, self.header(msg_type)
        for state in ("busy", "idle"):
            self.publish("status", {"execution_state": state})
        self.parent = outer

    # Commands

    def do_error(self, text: str) -> None:
        raise ScriptError(text)

    def do_result(self, text: str) -> None:
        self.publish("execute_result", {"execution_count": self.count, "data": {"text/plain": text}, "metadata": {}})

    def do_input(self, prompt: str, *, password: bool = False) -> None:
        identities = self.request[: self.request.index(DELIMITER)]
        parts = self.parts("input_request", {"prompt": prompt, "password": password})
        self.stdin.send_multipart([*identities, *self.frames(parts)])
        answer = self.stdin.recv_multipart()
        self.stream(json.loads(answer[answer.index(DELIMITER) + 5])["value"] + "\n")

    def do_raw(self, text: str) -> None:
        stream, _, data = text.partition(" ")
        os.write({"stdout": 1, "stderr": 2}[stream], bytes.fromhex(data))

    def do_after(self, file: str) -> None:
        """Wait for a file."""
        while not os.path.exists(file):
            self.wait(0.01)

    def do_flood(self, text: str) -> None:
        count, size = map(int, text.split())
        for number in range(count):
            self.stream(f"{number} " + "x" * size)

    def do_repeat(self, text: str) -> None:
        """Send the same message over and over, as fast as a kernel in Python can: signed once."""
        count, size = map(int, text.split())
        frames = self.frames(self.parts("stream", {"name": "stdout", "text": "x" * size}))
        for _ in range(count):
            self.iopub.send_multipart([b"stream", *frames])

    def do_spawn(self, seconds: str) -> None:
        child = subprocess.Popen([*SLEEP, seconds], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.stream(str(child.pid))

    def do_orphan(self, seconds: str) -> None:
        """Fork twice: the grandchild is nobody's child, deaf to polite signals, and holds this kernel's pipes."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                os.write(writing, str(os.getpid()).encode())
                os.execvp("sleep", ["sleep", seconds])
            os._exit(0)
        os.waitpid(child, 0)
        self.stream(os.read(reading, 100).decode())
        os.close(reading)
        os.close(writing)

    def do_headers(self, _: str) -> None:
        start = self.request.index(DELIMITER)
        documents = [json.loads(frame) for frame in self.request[start + 2 : start + 5]]
        frames = {"identities": start, "frames": len(self.request), "buffers": len(self.request) - start - 6}
        self.stream(json.dumps({"header": documents[0], "parent": documents[1], "metadata": documents[2], **frames}))

    def do_bad(self, fault: str) -> None:
        good = self.parts("stream", {"name": "stdout", "text": "bad\n"})
        header, parent, metadata, content = good
        if fault == "short":
            self.iopub.send_multipart([b"stream", DELIMITER, self.sign(good), header])
        elif fault == "signature":
            self.iopub.send_multipart([b"stream", DELIMITER, b"0" * 64, *good])
        elif fault == "empty-signature":
            self.iopub.send_multipart([b"stream", DELIMITER, b"", *good])
        elif fault == "no-delimiter":
            self.iopub.send_multipart([b"stream", b"nothing"])
        elif fault == "ids-only":
            minimal = json.dumps({"msg_id": "m", "msg_type": "stream"}).encode()
            self.iopub.send_multipart([b"", *self.frames([minimal, parent, metadata, content])])
        else:
            contents = {
                "json": b'{"name": ',
                "nan": b'{"name": "stdout", "text": "nan\\n", "value": [NaN, Infinity, -Infinity]}',
                "surrogate": b'{"name": "stdout", "text": "half \\ud83d\\n"}',
                "utf8": b'{"name": "stdout", "text": "latin \xe9\\n"}',
            }
            self.iopub.send_multipart([b"stream", *self.frames([header, parent, metadata, contents[fault]])])

    def do_buffers(self, text: str) -> None:
        count, size = map(int, text.split())
        content = {"data": {"text/plain": "buffers"}, "metadata": {}}
        self.publish("display_data", content, buffers=[bytes(range(256)) * (size // 256 or 1)] * count)


COMMANDS: dict[str, Any] = {
    "print": lambda kernel, text: kernel.stream(text + "\n"),
    "error": Kernel.do_error,
    "result": Kernel.do_result,
    "sleep": lambda kernel, text: kernel.wait(float(text)),
    "after": Kernel.do_after,
    "input": Kernel.do_input,
    "secret": lambda kernel, text: kernel.do_input(text, password=True),
    "stdout": lambda kernel, text: os.write(1, text.encode() + b"\n"),
    "stderr": lambda kernel, text: os.write(2, text.encode() + b"\n"),
    "raw": Kernel.do_raw,
    "stderr-flood": lambda kernel, text: [os.write(2, b"e" * 65536) for _ in range(int(text) // 65536)],
    "exit": lambda kernel, text: os._exit(int(text)),
    "kill": lambda kernel, text: os.kill(os.getpid(), int(text)),
    "stop": lambda kernel, text: os.kill(os.getpid(), signal.SIGSTOP),
    "flood": Kernel.do_flood,
    "repeat": Kernel.do_repeat,
    "chdir": lambda kernel, text: os.chdir(text),
    "spawn": Kernel.do_spawn,
    "orphan": Kernel.do_orphan,
    "env": lambda kernel, text: kernel.stream(os.environ.get(text, "<unset>")),
    "argv": lambda kernel, text: kernel.stream(json.dumps(sys.argv)),
    "pid": lambda kernel, text: kernel.stream(" ".join(map(str, own_ids()))),
    "cwd": lambda kernel, text: kernel.stream(os.getcwd()),
    "headers": Kernel.do_headers,
    "content": lambda kernel, text: kernel.stream(kernel.raw_content.decode()),
    "no-reply": lambda kernel, text: kernel.skip.add("reply"),
    "no-idle": lambda kernel, text: kernel.skip.add("idle"),
    "idle-first": lambda kernel, text: kernel.skip.add("idle-first"),
    "idle-of-first": lambda kernel, text: kernel.skip.add("idle-of-first"),
    "no-status": lambda kernel, text: kernel.skip.add("idle"),
    "outcome": lambda kernel, text: setattr(kernel, "outcome", text),
    "comm": lambda kernel, text: kernel.nested("comm_msg"),
    "duplicate-reply": lambda kernel, text: kernel.skip.add("twice"),
    "orphan-reply": lambda kernel, text: kernel.reply("execute_reply", {"status": "ok"}, parent={}),
    "bad": Kernel.do_bad,
    "buffers": Kernel.do_buffers,
}


def main() -> None:
    """Run a kernel as the command line says."""
    behaviours = {}
    words = sys.argv[2:]
    for flag, word in zip(words[::2], words[1::2], strict=True):
        assert flag == "--behaviour"
        name, _, value = word.partition("=")
        behaviours[name] = value
    Kernel(sys.argv[1], behaviours).run()


if __name__ == "__main__":
    main()
