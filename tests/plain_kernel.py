"""A kernel without any protocol, for tests of hosts: plain sockets, and it does what it is told on control.

It prints the ports of its five channels, as JSON. What comes on shell is sent back on shell. A line on control is a
command: ``flood COUNT SIZE`` sends so many numbered lines of that size on iopub; ``print COUNT SIZE`` prints them,
and ``flood-output COUNT SIZE`` does so beside other things;
``worker`` starts a process that is deaf to signals, and prints its id; ``hang-up`` closes iopub; ``say TEXT`` sends a
line on control; ``exit CODE`` and ``signal NUMBER`` end the kernel.
"""

import json
import os
import socket
import subprocess
import threading
from contextlib import suppress


def line(number, size):
    return str(number).encode().rjust(size - 1, b".") + b"\n"


def lines(count, size):
    return b"".join(line(number, size) for number in range(count))


def echo(listener):
    while True:
        connection, _ = listener.accept()
        with suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)


def write_all(data):
    while data:
        data = data[os.write(1, data) :]


def main():
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
    print(json.dumps([listener.getsockname()[1] for listener in listeners]), flush=True)
    threading.Thread(target=echo, args=(listeners[0],), daemon=True).start()
    iopub, is_heard = {}, threading.Event()

    def serve_iopub():
        while True:
            iopub["connection"] = listeners[1].accept()[0]
            is_heard.set()

    threading.Thread(target=serve_iopub, daemon=True).start()
    while True:
        control = listeners[3].accept()[0]
        for words in map(bytes.split, control.makefile("rb")):
            command, arguments = words[0].decode(), [int(word) if word.isdigit() else word for word in words[1:]]
            if command == "flood":
                # The command may be here before the other thread has taken the connection.
                is_heard.wait()
                sending = iopub["connection"].sendall
                threading.Thread(target=sending, args=(lines(*arguments),), daemon=True).start()
            elif command == "print":
                write_all(lines(*arguments))
            elif command == "flood-output":
                threading.Thread(target=write_all, args=(lines(*arguments),), daemon=True).start()
            elif command == "worker":
                worker = subprocess.Popen(["/bin/sh", "-c", "trap '' HUP INT TERM; exec sleep 600"])
                print(worker.pid, flush=True)
            elif command == "hang-up":
                iopub["connection"].close()
            elif command == "say":
                control.sendall(arguments[0] + b"\n")
            elif command == "exit":
                os._exit(arguments[0])
            elif command == "signal":
                os.kill(os.getpid(), arguments[0])


if __name__ == "__main__":
    main()
