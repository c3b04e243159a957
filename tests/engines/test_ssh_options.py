"""What a session may ask of SSH, and the commands that come of it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from kallichore.engines.ssh_errands import errand, read_answer, relay_errand
from kallichore.engines.ssh_options import SshOptions, command_line, quote, read_ssh_options
from kallichore.errors import EngineError

SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "ksh", "csh", "tcsh", "fish") if shutil.which(shell)]


def test_host_is_all_that_has_to_be_said() -> None:
    """A machine's name is enough; everything has a value that is right for most."""
    assert SshOptions("far") == read_ssh_options({"host": "far"})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "engine.host: required member missing"),
        ({"host": 7}, "engine.host: must be a string, not 7"),
        ({"host": "far", "hots": "x"}, "engine.hots is not known; known are host, python, config"),
        ({"host": "-oProxyCommand=evil"}, "engine.host is '-oProxyCommand=evil'; it can be"),
        ({"host": ""}, "engine.host is ''"),
        ({"host": "a b"}, "engine.host is 'a b'"),
        ({"host": "$(evil)"}, "engine.host is '$(evil)'"),
        ({"host": "far", "python": "it's"}, 'engine.python is "it\'s"'),
        ({"host": "far", "python": "~a;evil/python"}, "engine.python is '~a;evil/python'"),
        ({"host": "far", "python": "-c"}, "engine.python is '-c'"),
        ({"host": "far", "python": ""}, "engine.python is ''"),
        ({"host": "far", "options": "Port=1"}, 'engine.options: must be an array, not "Port=1"'),
        ({"host": "far", "options": [1]}, "engine.options.0: must be a string, not 1"),
        ({"host": "far", "options": ["Port"]}, "engine.options has 'Port'; each is a name and a value"),
        ({"host": "far", "options": ["Port=1\nProxyCommand=evil"]}, "engine.options has"),
        ({"host": "far", "options": ["batchmode no"]}, "batchmode cannot be chosen"),
        ({"host": "far", "kernelspec": ""}, "engine.kernelspec is empty"),
    ],
)  # fmt: skip
def test_option_that_cannot_be_used_is_named(options: dict[str, object], problem: str) -> None:
    """What is wrong is said with its name, and with what it may be."""
    with pytest.raises(EngineError) as caught:
        read_ssh_options(options)

    assert problem in caught.value.message


def test_all_problems_are_said_at_once() -> None:
    """Who mends one does not find the next only then."""
    with pytest.raises(EngineError) as caught:
        read_ssh_options({"host": "-", "python": "'", "ssh": ""})

    assert [] == [name for name in ("host", "python", "ssh") if f"engine.{name} is" not in caught.value.message]


def test_first_of_an_option_is_the_one_that_holds() -> None:
    """ssh takes the first: what must be so, then what the session wants, then what is right for most."""
    command = command_line(SshOptions("me@far", options=("ConnectTimeout=3",), config="/c", ssh="/opt/ssh"))
    given = [word for flag, word in pairwise(command) if flag == "-o"]

    assert ["/opt/ssh", "-F", "/c"] == command[:3]
    assert ["--", "me@far", "python3 -"] == command[-3:]
    assert given.index("BatchMode=yes") < given.index("ConnectTimeout=3") < given.index("ConnectTimeout=10")


@pytest.mark.parametrize(
    ("python", "word"),
    [
        ("python3", "python3"),
        ("/opt/py-3.8/bin/python3", "/opt/py-3.8/bin/python3"),
        ("~/env/bin/python", "~/env/bin/python"),
        ("~me/my env/bin/python", "~me/'my env/bin/python'"),
        ("/opt/a;b/python", "'/opt/a;b/python'"),
    ],
)
def test_path_of_a_python_is_one_word(python: str, word: str) -> None:
    """A shell over there fills in the home, and changes nothing else."""
    assert word == quote(python)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_hands_an_errand_on_as_it_is(shell: str, private_place: Path) -> None:
    """Whatever shell somebody has over there, the line arrives, and what lies around in the home does not matter."""
    (private_place / "zlib.py").write_text("raise SystemExit('this is not ours')")
    command = command_line(SshOptions("far", python=sys.executable), errand("survey"))[-1]
    done = subprocess.run([shell, "-c", command], cwd=private_place, capture_output=True, text=True)
    answer = read_answer(done.stdout)

    assert "" == done.stderr
    assert answer is not None
    assert (sys.executable, None) == (answer["python"], answer["problem"])


def test_errands_say_nothing_that_a_shell_would_change() -> None:
    """A line is letters, digits, and what means itself between single quotes, in csh and fish too."""
    lines = errand("look", "kallichore-x"), relay_errand("kallichore-x")

    assert [] == [each for line in lines for each in "'!\\$`\n" if each in line]
    assert all(shlex.split(f"'{line}'") == [line] for line in lines)
