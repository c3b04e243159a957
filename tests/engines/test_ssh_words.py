"""What ssh and the shells at its other end say, as they said it, and what follows from that."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.engines.ssh_words import LONGEST_WORDS, Complaint, Trouble, read_complaint

CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r
Someone could be eavesdropping on you right now (man-in-the-middle attack)!\r
It is also possible that a host key has just been changed.\r
The fingerprint for the ED25519 key sent by the remote host is
SHA256:N0G7KDK0YN5ew0d9Iv55JynEm6Xp0R/tqiF4ZIz5B2A.\r
Please contact your system administrator.\r
Add correct host key in /home/me/.ssh/known_hosts to get rid of this message.\r
Offending ED25519 key in /home/me/.ssh/known_hosts:1\r
  remove with:\r
  ssh-keygen -f "/home/me/.ssh/known_hosts" -R "far"\r
Host key for far has changed and you have requested strict checking.\r
Host key verification failed.\r
"""

UNKNOWN = """No ED25519 host key is known for far and you have requested strict checking.\r
Host key verification failed.\r
"""

BANNER = """*********************************\r
** Authorised users only        **\r
root@127.0.0.1: Permission denied (publickey).\r
"""

JUMP = """ssh: connect to host 127.0.0.1 port 1: Connection refused\r
kex_exchange_identification: Connection closed by remote host\r
Connection closed by UNKNOWN port 65535\r
"""

CHANNEL = """channel 0: open failed: connect failed: No route to host\r
stdio forwarding failed\r
kex_exchange_identification: Connection closed by remote host\r
"""

CROWD = """kex_exchange_identification: read: Connection reset by peer\r
Connection reset by 10.78.0.2 port 22\r
"""

REFUSED = "ssh: connect to host 127.0.0.1 port 1: Connection refused\r\n"
NO_NAME = "ssh: Could not resolve hostname no.such.name.invalid: Name or service not known\r\n"
SILENT = "Connection timed out during banner exchange\r\nConnection to 127.0.0.1 port 42295 timed out\r\n"
TRIES = "Received disconnect from 127.0.0.1 port 42295:2: Too many authentication failures\r\nDisconnected\r\n"
BAD_OPTION = "command-line: line 0: Bad configuration option: fooo\r\n"
BAD_FILE = "/home/me/.ssh/config: line 3: Bad configuration option: fooo\r\n/home/me/.ssh/config: terminating, 1 bad "
FISH = "fish: Unknown command: python9\nfish: \npython9 - \n^~~~~~^\n"
TRACEBACK = "Traceback (most recent call last):\nFileNotFoundError: No such file or directory\n"
CUT = "Timeout, server 10.78.0.2 not responding.\r\n"
CLOSED = "Connection to 10.78.0.2 closed by remote host.\r\nConnection to 10.78.0.2 closed.\r\n"


@pytest.mark.parametrize(
    ("code", "said", "trouble", "words"),
    [
        (255, NO_NAME, Trouble.NO_NAME, NO_NAME),
        (255, REFUSED, Trouble.NO_WAY, REFUSED),
        (255, JUMP, Trouble.NO_WAY, REFUSED),
        (255, CHANNEL, Trouble.NO_WAY, "channel 0: open failed: connect failed: No route to host"),
        (255, SILENT, Trouble.NO_WAY, "Connection timed out during banner exchange"),
        (255, CHANGED, Trouble.CHANGED, "Host key for far has changed and you have requested strict checking."),
        (255, UNKNOWN, Trouble.UNKNOWN, "No ED25519 host key is known for far and you have requested strict checking."),
        (255, "Host key verification failed.\r\n", Trouble.UNKNOWN, "Host key verification failed."),
        (255, BANNER, Trouble.DENIED, "root@127.0.0.1: Permission denied (publickey)."),
        (255, TRIES, Trouble.DENIED, TRIES.splitlines()[0]),
        (255, BAD_OPTION, Trouble.MISUSED, BAD_OPTION),
        (255, BAD_FILE, Trouble.MISUSED, BAD_FILE.splitlines()[0]),
        (255, "command-line line 0: Bad port 'x'.\r\n", Trouble.MISUSED, "command-line line 0: Bad port 'x'."),
        (255, "Can't open user config file /no: No such file or directory\r\n", Trouble.MISUSED, None),
        (255, "Bad owner or permissions on /home/me/.ssh/config\r\n", Trouble.MISUSED, None),
        (255, CROWD, Trouble.LOST, "kex_exchange_identification: read: Connection reset by peer"),
        (255, CUT, Trouble.LOST, CUT),
        (255, "client_loop: send disconnect: Broken pipe\r\n", Trouble.LOST, None),
        (255, "Welcome!\n" + CLOSED, Trouble.LOST, "Connection to 10.78.0.2 closed by remote host."),
        (255, "", Trouble.LOST, ""),
        (-9, "", Trouble.LOST, "ssh was ended by signal 9"),
        (127, "bash: line 1: python9: command not found\n", Trouble.NO_PYTHON, None),
        (127, "sh: 1: python9: not found\n", Trouble.NO_PYTHON, None),
        (127, FISH, Trouble.NO_PYTHON, "fish: Unknown command: python9"),
        (1, "python9: Command not found.\n", Trouble.NO_PYTHON, None),
        (126, "bash: line 1: /tmp: Is a directory\n", Trouble.NO_PYTHON, None),
        (127, "", Trouble.NO_PYTHON, "exit code 127"),
        (1, "Python 3.8 or later is needed, and this is 2.7.18\n", Trouble.FAILED, None),
        (1, "/tmp/k/host.sock: Permission denied\n", Trouble.FAILED, None),
        (1, TRACEBACK, Trouble.FAILED, "FileNotFoundError: No such file or directory"),
        (3, "", Trouble.FAILED, "exit code 3"),
    ],
)  # fmt: skip
def test_complaint_is_understood(code: int, said: str, trouble: Trouble, words: str | None) -> None:
    """What does not work is known by what was said, and the line that says it is told."""
    assert Complaint(trouble, (said if words is None else words).strip()) == read_complaint(code, said)


def test_only_what_may_still_happen_is_uncertain() -> None:
    """Where a connection was lost, or nothing came, something may run over there; where it failed, something has."""
    assert {Trouble.LOST, Trouble.SILENT, Trouble.FAILED} == {each for each in Trouble if not each.is_refusal}


def test_complaint_becomes_a_sentence() -> None:
    """People are told what does not work with which machine, and ssh's own words."""
    described = read_complaint(255, REFUSED).describe("far")

    assert f"ssh to far cannot reach it: {REFUSED.strip()}" == described
    assert "ssh to far lost the connection" == read_complaint(255, "").describe("far")


def test_each_trouble_has_words() -> None:
    """A sentence without them would only name the machine."""
    assert all(each.value for each in Trouble)


@pytest.mark.parametrize(
    ("length", "words"),
    [(LONGEST_WORDS, "x" * LONGEST_WORDS), (LONGEST_WORDS + 1, "x" * (LONGEST_WORDS - 3) + "...")],
)
def test_what_is_too_long_is_cut_and_says_so(length: int, words: str) -> None:
    """What just fits is whole."""
    assert words == read_complaint(1, "x" * length).words


@given(st.integers(-64, 255).filter(bool), st.text())
def test_anything_that_is_said_can_be_told(code: int, said: str) -> None:
    """Whatever comes, there is one line of it, and not a long one."""
    words = read_complaint(code, said).words

    assert len(words) <= LONGEST_WORDS
    assert len(words.splitlines()) <= 1
