"""The state directory: one user's, one server's at a time, of a version that is known, and plain names in it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, strategies as st

from kallichore.errors import ConfigurationError, StateDirectoryInUseError, StateVersionError
from kallichore.state.directory import StateDirectory, boot_id, open_state_directory, safe_name

pytestmark = pytest.mark.posix_only("on Windows kernels end with their server")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return where a state directory may be made."""
    return tmp_path / "above" / "state"


def mode_of(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def refusal(path: Path) -> str:
    """Return in which words a state directory is refused."""
    with pytest.raises(ConfigurationError) as caught:
        with open_state_directory(path, ""):
            pass
    return str(caught.value)


def make(directory: StateDirectory, session_id: str) -> Path:
    """Make a session's directory with nothing in it, and return it."""
    with directory.create(session_id):
        pass
    return directory.directory_of(session_id)


def test_directory_is_made_for_its_owner_only(place: Path) -> None:
    """Nobody else comes into it, or reads a file of it."""
    with open_state_directory(place, "") as directory:
        session = make(directory, "s")

        assert [0o700, 0o700, 0o700] == [mode_of(each) for each in (place, place / "sessions", session)]
        assert [0o600, 0o600] == [mode_of(place / name) for name in ("version", "lock")]


def test_sessions_are_there_for_the_next_server(place: Path) -> None:
    """What is created stays until it is removed."""
    with open_state_directory(place, "") as directory:
        kept, removed = make(directory, "kept"), make(directory, "removed")
        (removed / "file").touch()
    with open_state_directory(place, "") as directory:
        directory.remove("removed")
        directory.remove("removed")

        assert ([kept], kept) == (directory.sessions(), directory.directory_of("kept"))
        assert [kept.name] == os.listdir(place / "sessions")


def test_session_that_is_there_is_not_begun_anew(place: Path) -> None:
    """A directory with something in it is nobody else's."""
    with open_state_directory(place, "") as directory:
        make(directory, "s")
        with pytest.raises(FileExistsError):
            make(directory, "s")


def test_second_server_is_told_which_has_the_directory(place: Path) -> None:
    """Another process is told pid and address of the first, also in fields, and gets the directory at its end."""
    program = (
        "import sys; from pathlib import Path; from kallichore.state.directory import open_state_directory\n"
        "with open_state_directory(Path(sys.argv[1]), 'starting') as directory:\n"
        "    directory.announce('http://127.0.0.1:1234')\n"
        "    print('has it', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert "has it\n" == first.stdout.readline()
        with pytest.raises(StateDirectoryInUseError) as caught:
            with open_state_directory(place, ""):
                pass
        first.kill()
    with open_state_directory(place, ""):
        pass

    assert (first.pid, "http://127.0.0.1:1234") == (caught.value.pid, caught.value.address)
    assert str(caught.value) == (
        f"--state-dir {place}: the server with pid {first.pid} at http://127.0.0.1:1234 has it;"
        " end that one, give --replace, or name another place"
    )


def test_second_server_in_the_same_process_is_refused_too(place: Path) -> None:
    """Two servers may be embedded in one program, and not share a directory."""
    with open_state_directory(place, "here"), pytest.raises(StateDirectoryInUseError, match="at here has it"):
        with open_state_directory(place, "there"):
            pass


def test_owner_that_says_nothing_is_another_server(place: Path) -> None:
    """A lock may be held by a server that has not written anything yet, or something else."""
    with open_state_directory(place, "here"):
        (place / "lock").write_bytes(b"\xff\xfe nobody")
        with pytest.raises(StateDirectoryInUseError, match="another server at nobody has it") as caught:
            with open_state_directory(place, ""):
                pass

    assert caught.value.pid is None


@pytest.mark.parametrize("content", [b"2\n", b" 10", b"2"])
def test_newer_version_is_refused_and_left_alone(place: Path, content: bytes) -> None:
    """What a newer Kallichore wrote would be misread."""
    place.mkdir(mode=0o700, parents=True)
    (place / "version").write_bytes(content)
    with pytest.raises(StateVersionError, match=f"its version is {int(content)}, and this Kallichore knows .* to 1;"):
        with open_state_directory(place, ""):
            pass

    assert (content, False) == ((place / "version").read_bytes(), (place / "sessions").exists())


@pytest.mark.parametrize("content", [b"", b"\xff\x00", None])
def test_damaged_version_is_named_and_mended(
    place: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a version that can be read the sessions are there all the same."""
    with open_state_directory(place, "") as directory:
        session = make(directory, "s")
    (place / "version").unlink()
    if content is not None:
        (place / "version").write_bytes(content)
    with open_state_directory(place, "") as directory:
        assert [session] == directory.sessions()

    assert b"1\n" == (place / "version").read_bytes()
    assert f"{place / 'version'} does not name a version; what is there is read as version 1" in caplog.text


def test_new_directory_is_nothing_to_warn_of(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first start says nothing."""
    with open_state_directory(place, ""):
        pass

    assert caplog.text == ""


def test_directory_of_another_user_is_refused(place: Path) -> None:
    """What is in it would name processes, sockets and secrets of somebody else."""
    place.mkdir(mode=0o700, parents=True)
    user = os.getuid()
    with mock.patch("kallichore.state.directory.os.getuid", return_value=user + 1):
        assert f"--state-dir {place}: it belongs to another user (uid {user}); name your own" == refusal(place)


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_directory_that_others_may_write_to_is_refused(place: Path, mode: int) -> None:
    """Others could put a session into it."""
    place.mkdir(parents=True)
    place.chmod(mode)

    assert f"--state-dir {place}: others may write to it; `chmod go-w` it, or name another place" == refusal(place)


def test_file_in_its_place_is_refused(tmp_path: Path) -> None:
    """A file stays what it is."""
    path = tmp_path / "file"
    path.touch()

    assert f"--state-dir {path}: this is not a directory; name another place" == refusal(path)
    assert "Not a directory" in refusal(path / "below")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a directory that root cannot write to either")
def test_directory_that_cannot_be_written_is_refused() -> None:
    """The system's reason is told, and which directory it is about."""
    assert refusal(Path("/proc/self")).startswith("--state-dir /proc/self: ")
    assert refusal(Path("/proc/nothing")).startswith("--state-dir /proc/nothing: cannot be used: ")


def test_session_that_is_not_made_to_the_end_is_none(place: Path) -> None:
    """Until all of it is there it is not listed, and a failure leaves room for another try."""
    with open_state_directory(place, "") as directory:
        with pytest.raises(OSError, match="full"), directory.create("s") as made:
            (made / "session.json").touch()
            during = directory.sessions()
            raise OSError("full")
        after = os.listdir(place / "sessions")
        session = make(directory, "s")

        assert ([], []) == (during, after)
        assert [session] == directory.sessions()


def test_leftovers_of_a_killed_server_are_cleared(place: Path) -> None:
    """Files that were not written to their end, and sessions that were not made or removed to their end, are gone."""
    with open_state_directory(place, "") as directory:
        session = make(directory, "s")
    gone, half = (place / "sessions" / f"{prefix}{session.name}" for prefix in (".gone-", ".new-"))
    gone.mkdir()
    half.mkdir()
    for path in (place / "version.new", session / "session.json.new", gone / "file", half / "file"):
        path.touch()
    with open_state_directory(place, "") as directory:
        assert [session] == directory.sessions()

    assert [session] == list((place / "sessions").iterdir())
    assert (["lock", "sessions", "version"], []) == (sorted(os.listdir(place)), os.listdir(session))


@given(st.text() | st.sampled_from(["", ".", "..", "../../x", "a/b", "x" * 300, "\0", "\ud800", ".gone-s"]))
def test_any_id_has_a_plain_name(session_id: str) -> None:
    """Whatever an id is made of, its directory is a plain word, and short enough for any file system."""
    name = safe_name(session_id)

    assert name.replace("-", "").replace("_", "").isalnum()
    assert name.isascii()
    assert len(name) < 100


@given(st.lists(st.text("aA/_.", max_size=3) | st.text(), unique=True))
def test_two_ids_never_share_a_name(session_ids: list[str]) -> None:
    """Also those that look alike have different directories, on file systems too that do not tell a from A."""
    assert len(session_ids) == len({safe_name(each).lower() for each in session_ids})


def test_boot_of_the_machine_stays_the_same() -> None:
    """All processes of one run of the machine agree on it."""
    code = "from kallichore.state.directory import boot_id; print(boot_id())"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert f"{boot_id()}\n" == other.stdout


def test_machine_that_does_not_tell_its_boots_has_none() -> None:
    """Without a boot id nothing is raised."""
    with mock.patch("kallichore.state.directory.Path.read_text", side_effect=FileNotFoundError):
        with mock.patch("kallichore.state.directory.sys.platform", "linux"):
            assert boot_id() is None
