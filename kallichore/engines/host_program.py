"""The programs beside a kernel as texts that carry all they need, for a Python on another machine. [pure]

Nothing is installed there, and nothing is copied before: what is to be done is a part of the text, which goes to where
only its owner may look: `sbatch`'s and ssh's standard input, a pod's Secret. So it may have secrets in it, and no
command line has any.
"""

from __future__ import annotations

import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

import attrs

from kallichore.host import DIAL_PROGRAM, HOST_PROGRAM, RELAY_PROGRAM

SHEBANG = "#!/usr/bin/env python3"
"""The first line of a batch script: which program reads the rest."""

OLDEST = (3, 8)
"""The first Python that can run them; an older one has to say so itself, in syntax that it understands."""

NOBODY_LISTENS = 3
"""The exit code of a relay where there is no host, see `kallichore/host/relay.py`."""

WIDTH = 120
"""Characters of a line: some programs that hand texts on have their limits."""

_HOST = """{shebang}
import sys
if sys.path[:1] == [""]:
    # A file that lies around here is not to be taken for one of Python's own.
    del sys.path[0]
if sys.version_info < {oldest}:
    sys.stdout.write("failed: Python {words} or later is needed here, and this is " + sys.version.split()[0] + "\\n")
    sys.exit(1)
import binascii, json, zlib
DATA = '''
{data}
'''
DATA = json.loads(zlib.decompress(binascii.a2b_base64(DATA)).decode())
def load(name):
    names = {{"__name__": "kallichore_" + name}}
    exec(compile(DATA[name], name + ".py", "exec"), names)
    return names
def dial(server, path):
    load("dial")["dial"](server, path)
sys.exit(load("host")["run"](DATA["document"], dial))
"""
"""What a Python starts with. What dials is loaded by who does it: that needs more memory than all the rest."""

_RELAY = """
sys.exit(relay({path!r}))
"""

_ONE_LINE = 'import binascii,zlib;exec(zlib.decompress(binascii.a2b_base64("{data}")))'


@attrs.frozen
class Ready:
    """What a host says when servers can attach.

    Attributes:
        pid: Its process.
        socket: Where it listens, as a path on its machine; relative to where it was started if it was told so.
    """

    pid: int
    socket: str


def host_script(document: Mapping[str, Any], *, shebang: str = SHEBANG) -> bytes:
    """Return a Python program that is a host and knows what to do, in ASCII.

    Args:
        document: What to do, see `kallichore/host/host.py`.
        shebang: The first line.
    """
    parts = {
        "host": HOST_PROGRAM.read_text("utf-8"),
        "dial": DIAL_PROGRAM.read_text("utf-8") if document.get("dial") else "",
        "document": dict(document),
    }
    packed = _pack(json.dumps(parts).encode())
    data = "\n".join(packed[place : place + WIDTH] for place in range(0, len(packed), WIDTH))
    words = ".".join(map(str, OLDEST))
    return _HOST.format(shebang=shebang, oldest=OLDEST, words=words, data=data).encode("ascii")


def dial_document(address: tuple[str, int], identity: bytes, certificate: str) -> dict[str, Any]:
    """Return the document's ``dial``: how a host reaches its server.

    Args:
        address: Where the server listens for hosts, as its machine is called from there.
        identity: 16 bytes by which the server knows the host.
        certificate: The server's, as PEM; no other is accepted.
    """
    return {"address": list(address), "id": identity.hex(), "certificate": certificate}


def relay_script(path: str) -> bytes:
    """Return a Python program that carries its input and output to a host's socket and back.

    It ends when the host is gone or nobody takes what the host says, with `NOBODY_LISTENS` where there was none.

    Args:
        path: The socket's.
    """
    program, _, _ = RELAY_PROGRAM.read_text("utf-8").partition('\nif __name__ == "__main__":')
    return (program + _RELAY.format(path=path)).encode()


def as_argument(script: bytes) -> str:
    """Return a program as one line without anything that a shell would change between single quotes.

    That is how ssh hands a command on: whatever shell is over there, ``csh`` too, ``python3 -c '...'`` runs it.

    Args:
        script: It has no secrets, since everybody over there can see arguments.
    """
    return _ONE_LINE.format(data=_pack(script))


def _pack(data: bytes) -> str:
    return binascii.b2a_base64(zlib.compress(data, 9), newline=False).decode("ascii")


def read_ready(said: bytes) -> Ready | None:
    """Return what a host said when it was ready; None if it did not.

    Args:
        said: All that came from it, and perhaps from others: a login shell may say something before.
    """
    found = _find(said, "ready ")
    try:
        told = json.loads(found or "null")
        return Ready(int(told["pid"]), str(told["socket"]))
    except (ValueError, LookupError, TypeError):
        return None


def read_failure(said: bytes) -> str | None:
    """Return why a host could not be, in its words; None if it did not say so."""
    return _find(said, "failed: ")


def _find(said: bytes, word: str) -> str | None:
    lines = said.decode(errors="replace").splitlines()
    return next((line[len(word) :] for line in lines if line.startswith(word)), None)
