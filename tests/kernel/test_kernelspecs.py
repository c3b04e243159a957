"""Installed kernels: found where Jupyter looks, the first of a name, and the broken ones told."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kallichore.errors import KernelNotFoundError
from kallichore.kernel.kernelspecs import KernelSpec, find_kernelspec, list_kernelspecs
from kallichore.models.bodies import InterruptMode, KernelProvisioner, NewSession, VarAction, VarActionType

SPEC: dict[str, Any] = {"argv": ["/bin/kernel", "-f", "{connection_file}"], "display_name": "A kernel", "language": "a"}
BROKEN = [
    *(b"", b"{", b"[]", b"null", b"\xff"),
    *(b"{}", b'{"argv":[]}', b'{"argv":null}', b'{"argv":"R --slave"}'),
    *(b'{"argv":["a"],"metadata":{"kernel_provisioner":%s}}' % wanted for wanted in (b"7", b'{"provisioner_name":7}')),
    *(b'{"argv":["a"],"metadata":{"kernel_provisioner":{"provisioner_name":"a","config":[1]}}}',),
    *(b'{"argv":["a"],"env":[]}', b'{"argv":["a"],"interrupt_mode":"never"}'),
]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two places where Jupyter looks first, in this order, both empty; the user's own has nothing."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    return [tmp_path / "one" / "kernels", tmp_path / "two" / "kernels"]


def install(place: Path, name: str, content: bytes | dict[str, Any] = SPEC) -> Path:
    """Install a kernel; return its folder."""
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def test_kernel_is_read_with_all_that_it_says(places: list[Path]) -> None:
    """Command line, names, environment and interrupt mode come from kernel.json; the resource folder is put in."""
    content = {
        **SPEC,
        "argv": ["/bin/kernel", "{resource_dir}/start", "{connection_file}"],
        "env": {"A": "1", "B": 2},
        "interrupt_mode": "message",
        "metadata": {"debugger": True},
    }
    folder = install(places[0], "mine", content)

    assert find_kernelspec("mine") == KernelSpec(
        name="mine",
        argv=("/bin/kernel", f"{folder}/start", "{connection_file}"),
        display_name="A kernel",
        language="a",
        resource_dir=str(folder),
        env={"A": "1", "B": "2"},
        interrupt_mode=InterruptMode.MESSAGE,
    )


def test_what_kernel_json_leaves_out_has_a_default(places: list[Path]) -> None:
    """Only the command line is needed; the interrupt mode is signal, as in the Jupyter docs."""
    folder = install(places[0], "Mine", {"argv": ["k"]})

    assert find_kernelspec("mine") == KernelSpec("mine", ("k",), "Mine", "", str(folder))


@pytest.mark.parametrize(
    ("word", "filled_in"),
    [
        ("{prefix}/bin/R", f"{sys.prefix}/bin/R"),
        ("-f={connection_file}", "-f={connection_file}"),
        ("{resource_dir}{prefix}", "{resource_dir}" + sys.prefix),
        ("{Prefix} {} {0} {no such} {unknown}", "{Prefix} {} {0} {no such} {unknown}"),
        ("${prefix}", "$" + sys.prefix),
    ],
)
def test_placeholders_are_filled_in(places: list[Path], word: str, filled_in: str) -> None:
    """This Python's prefix and the kernel's own folder, wherever they stand; what we do not know stays."""
    folder = install(places[0], "mine", {**SPEC, "argv": ["{prefix}/bin/R", word]})

    assert find_kernelspec("mine").argv == (f"{sys.prefix}/bin/R", filled_in.replace("{resource_dir}", str(folder)))


@pytest.mark.parametrize(
    ("value", "filled_in"),
    [
        ("/my/bin:${PATH}", "/my/bin:/usr/bin"),
        ("$PATH/x", "/usr/bin/x"),
        ("${PATH}${PATH}", "/usr/bin/usr/bin"),
        ("a$$b", "a$b"),
        ("$${PATH}", "${PATH}"),
        ("${NO_SUCH_ONE}/x", "${NO_SUCH_ONE}/x"),
        ("100% {PATH} $ ${ $1", "100% {PATH} $ ${ $1"),
        ("${TWICE}", "${PATH}"),
        ("$OTHER", "$OTHER"),
        ("", ""),
    ],
)
def test_variables_in_the_environment_have_their_values(value: str, filled_in: str) -> None:
    """As jupyter_client has it: once, unknown names stay, and variables of the same kernel.json are unknown."""
    spec = KernelSpec("mine", ("k",), "", "", "/", {"OTHER": "1", "A": value})

    assert spec.environment({"PATH": "/usr/bin", "TWICE": "${PATH}"}) == {"OTHER": "1", "A": filled_in}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"kernel_provisioner": None}, {"kernel_provisioner": {}}, None]
    + [{"kernel_provisioner": {"provisioner_name": name, "config": {}}} for name in ("local-provisioner", "", None)],
)
def test_kernel_that_names_no_other_provisioner_is_ours(places: list[Path], metadata: dict[str, Any] | None) -> None:
    """Without a provisioner, or with Jupyter's own local one as it is, a kernel is a process of this machine."""
    install(places[0], "mine", {**SPEC, "metadata": metadata})
    spec = find_kernelspec("mine")

    assert (tuple(SPEC["argv"]), None) == (spec.argv, spec.kernel_provisioner)


@pytest.mark.parametrize("argv", [["{prefix}/bin/R", "{resource_dir}", "{connection_file}"], ["python"], []])
def test_kernel_of_a_provisioner_keeps_what_is_for_that(places: list[Path], argv: list[str]) -> None:
    """Its command line, which may be none, is as it is written; its settings and the other metadata go with it into a
    session.
    """
    wanted = {"provisioner_name": "docker-provisioner", "config": {"image": "r"}}
    content = {**SPEC, "argv": argv, "metadata": {"kernel_provisioner": wanted, "debugger": True}}
    folder = install(places[0], "mine", content)
    provisioner = KernelProvisioner(
        provisioner_name="docker-provisioner",
        config={"image": "r"},
        kernel_name="mine",
        resource_dir=str(folder),
        metadata={"debugger": True},
    )
    request = list_kernelspecs()["mine"].new_session("s")

    assert (tuple(argv), provisioner) == (request.argv, request.kernel_provisioner)


def test_local_provisioner_with_settings_is_one(places: list[Path]) -> None:
    """Jupyter's own provisioner, given settings, is asked for by that."""
    wanted = {"provisioner_name": "local-provisioner", "config": {"a": 1}}
    install(places[0], "mine", {**SPEC, "metadata": {"kernel_provisioner": wanted}})
    provisioner = find_kernelspec("mine").kernel_provisioner

    assert provisioner is not None
    assert {"a": 1} == provisioner.config


class Closed:
    """Directories that may not be entered, also not by root: what the system says of them, without the system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *closed: Path) -> None:
        self._closed = closed
        for name in ("scandir", "listdir", "stat"):
            monkeypatch.setattr(os, name, self._guard(getattr(os, name)))

    def _guard(self, call: Any) -> Any:
        def guarded(path: Any = ".", *arguments: Any, **named: Any) -> Any:
            place = Path(path) if isinstance(path, str | Path) else Path()
            if any(folder in place.parents or (folder == place and call is not os.stat) for folder in self._closed):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *arguments, **named)

        return guarded


@pytest.mark.parametrize("depth", ["place", "above", "kernel"])
def test_closed_directory_costs_no_other_kernel(
    places: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, depth: str
) -> None:
    """What may not be entered is passed over, whether it is the kernel's, the place or above; debug tells which."""
    folder = install(places[0], "shut")
    install(places[1], "good")
    closed = {"place": places[0], "above": places[0].parent, "kernel": folder}[depth]
    Closed(monkeypatch, closed)
    with caplog.at_level(logging.DEBUG, "kallichore"):
        names = set(list_kernelspecs())
        found = find_kernelspec("good")

    assert names & {"shut", "good"} == {"good"}
    assert found.name == "good"
    named = folder if depth == "kernel" else places[0]
    assert {(record.levelname, str(named) in record.getMessage()) for record in caplog.records} == {("DEBUG", True)}


def test_ipykernel_without_a_kernelspec_is_offered(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Jupyter: this very Python, as python3."""
    monkeypatch.setattr("kallichore.kernel.kernelspecs._folders", lambda: places)
    listed = list_kernelspecs()
    found = find_kernelspec("Python3")

    assert listed == {"python3": found}
    assert found.argv == (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
    assert (found.language, Path(found.resource_dir).is_dir()) == ("python", True)


@pytest.mark.parametrize(
    ("told", "understood"),
    [
        (["curve"], ("curve",)),
        ("CURVE ", ("curve",)),
        (["x", "Curve"], ("x", "curve")),
        ([], ()),
        (None, ()),
        ({"curve": 1}, ()),
    ],
)
def test_kernel_says_how_it_can_encrypt(places: list[Path], told: Any, understood: tuple[str, ...]) -> None:
    """As one word or a list, in any case, as jupyter_client reads it; a session with that kernel says it too."""
    install(places[0], "mine", {**SPEC, "metadata": {"supported_encryption": told}})
    spec = find_kernelspec("mine")

    assert understood == spec.supported_encryption
    assert (understood or None) == spec.new_session("s").supported_encryption


@pytest.mark.parametrize(
    ("version", "understood"), [("7.3.0", ("curve",)), ("7.10a1", ("curve",)), ("7.2.9", ()), ("6.29", ()), ("x", ())]
)
def test_native_kernel_encrypts_since_ipykernel_does(
    places: list[Path], monkeypatch: pytest.MonkeyPatch, version: str, understood: tuple[str, ...]
) -> None:
    """What ipykernel's own kernelspec would say depends on its version."""
    monkeypatch.setattr("kallichore.kernel.kernelspecs._folders", lambda: places)
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)

    assert understood == find_kernelspec("python3").supported_encryption


def test_installed_python3_comes_before_the_native_one(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of that name that is installed is meant, also if it is broken: that is told, not passed over."""
    monkeypatch.setattr("kallichore.kernel.kernelspecs._folders", lambda: places)
    install(places[0], "python3", {"argv": ["other"]})
    first = find_kernelspec("python3")
    (places[0] / "python3" / "kernel.json").write_text("{")

    assert first.argv == ("other",)
    assert list_kernelspecs() == {}
    with pytest.raises(KernelNotFoundError, match="is broken"):
        find_kernelspec("python3")


def test_without_ipykernel_there_is_no_native_kernel(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Then python3 is not there, and the error says how to get it."""
    monkeypatch.setattr("kallichore.kernel.kernelspecs._folders", lambda: places)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    assert list_kernelspecs() == {}
    with pytest.raises(KernelNotFoundError, match="no kernel 'python3'; installed: none") as caught:
        find_kernelspec("python3")
    assert caught.value.details == "To get it: python -m pip install ipykernel"


@pytest.mark.parametrize("name", ["mine", "MINE", "Mine"])
def test_names_do_not_depend_on_case(places: list[Path], name: str) -> None:
    """A kernel is found however its name is written."""
    install(places[0], "mInE")

    assert find_kernelspec(name).name == "mine"


def test_first_place_wins(places: list[Path]) -> None:
    """A kernel that is installed twice is the one of the place where Jupyter looks first."""
    install(places[1], "mine", {**SPEC, "display_name": "second"})
    first = install(places[0], "Mine", {**SPEC, "display_name": "first"})
    install(places[1], "other")

    assert find_kernelspec("mine").resource_dir == str(first)
    assert list_kernelspecs()["mine"].display_name == "first"
    assert "other" in list_kernelspecs()


@pytest.mark.parametrize("content", BROKEN)
def test_broken_kernel_is_left_out_and_told(
    places: list[Path], caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """A kernel.json that cannot be used costs no other kernel; asked for by name, it is an error with its path."""
    folder = install(places[0], "broken", content)
    install(places[0], "good")
    with caplog.at_level(logging.WARNING):
        names = set(list_kernelspecs())

    assert names & {"broken", "good"} == {"good"}
    assert [message.partition(" is broken: ")[0] for message in caplog.messages] == [str(folder / "kernel.json")]
    with pytest.raises(KernelNotFoundError, match=r"broken/kernel\.json is broken"):
        find_kernelspec("broken")


def test_folder_without_a_kernel_json_is_no_kernel(places: list[Path]) -> None:
    """Stray files and folders among the kernels are passed over."""
    (places[0] / "empty").mkdir(parents=True)
    (places[0] / "file").write_text("")
    install(places[0], "good")

    assert set(list_kernelspecs()) & {"empty", "file", "good"} == {"good"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("python9", "pip install ipykernel"),
        ("cobol", "jupyter kernelspec install --user"),
        ("ir", "IRkernel::installspec()"),
    ],
)
def test_missing_kernel_is_told_with_those_that_are_there(places: list[Path], name: str, hint: str) -> None:
    """The error lists what is installed, and says how to get the other."""
    install(places[0], "mine")
    with pytest.raises(KernelNotFoundError, match=f"no kernel '{name}'; installed: .*mine") as caught:
        find_kernelspec(name)

    assert hint in str(caught.value.details)


@pytest.mark.parametrize("word", ["python", "python3", f"python3.{sys.version_info.minor}"])
def test_bare_python_of_our_own_kernels_is_this_python(
    places: list[Path], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """A kernel that came with this Python runs in it, whatever PATH says; one from elsewhere is left as it is."""
    install(places[0], "ours", {"argv": [word, "-m", "k"]})
    install(places[1], "theirs", {"argv": [word, "-m", "k"]})
    monkeypatch.setattr(sys, "prefix", str(places[0].parent))

    assert find_kernelspec("ours").argv == (sys.executable, "-m", "k")
    assert find_kernelspec("theirs").argv == (word, "-m", "k")


@pytest.mark.parametrize("program", ["/usr/bin/python3", "python2.7", "pythonw", "R"])
def test_other_programs_are_left_alone(places: list[Path], monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Only a bare name of this very version of Python is replaced."""
    install(places[0], "ours", {"argv": [program]})
    monkeypatch.setattr(sys, "prefix", str(places[0].parent))

    assert find_kernelspec("ours").argv == (program,)


def test_spec_makes_a_request_for_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request has what the kernel needs, its variables as actions, and what the caller adds or changes."""
    monkeypatch.setenv("OURS", "1")
    spec = KernelSpec("mine", ("k", "-f"), "A kernel", "a", "/", {"A": "$OURS"}, InterruptMode.MESSAGE)

    assert spec.new_session("one", username="me", display_name="Mine") == NewSession(
        session_id="one",
        argv=("k", "-f"),
        display_name="Mine",
        language="a",
        username="me",
        interrupt_mode=InterruptMode.MESSAGE,
        env=(VarAction(VarActionType.REPLACE, "A", "1"),),
    )


def test_kernel_of_another_machine_has_its_engine(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What `metadata.kallichore.engine` says is the session's; what variables are on this machine does not matter."""
    monkeypatch.setenv("PATH", "/here")
    env = {"PATH": "/opt/bin:$PATH", "LIB": "${LIB}:/lib", "HOME": "/$USER"}
    metadata = {"kallichore": {"engine": {"profile": "big"}}}
    install(places[0], "big", {**SPEC, "argv": ["python3", "{connection_file}"], "env": env, "metadata": metadata})
    request = find_kernelspec("big").new_session("s")

    assert ({"profile": "big"}, ("python3", "{connection_file}")) == (request.engine, request.argv)
    assert (
        VarAction(VarActionType.PREPEND, "PATH", "/opt/bin:"),
        VarAction(VarActionType.APPEND, "LIB", ":/lib"),
        VarAction(VarActionType.REPLACE, "HOME", "/$USER"),
    ) == request.env


@pytest.mark.parametrize("engine", [7, "big", [1]])
def test_engine_of_a_kernel_has_to_be_an_object(places: list[Path], engine: Any) -> None:
    """A kernel.json in which the engine is something else is broken, and says how it has to be."""
    install(places[0], "big", {**SPEC, "metadata": {"kallichore": {"engine": engine}}})

    with pytest.raises(KernelNotFoundError, match="engine must be an object"):
        find_kernelspec("big")
