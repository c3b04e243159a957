"""From a session's request to what is launched: values in, a plan out, and a machine that is made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kallichore.errors import StartupError
from kallichore.kernel.launch_plan import (
    LaunchPlan,
    Surroundings,
    make_launch_plan,
    missing_program,
    safe_name,
    uses_handshake,
)
from kallichore.models.bodies import NewSession, StartupEnvironment, VarAction, VarActionType

REPLACE, APPEND, PREPEND = VarActionType.REPLACE, VarActionType.APPEND, VarActionType.PREPEND

FILES = {"/bin/bash", "/bin/sh", "/bin/zsh", "/setup.sh", "/home/me/setup.sh", "/home/me/work/setup.sh", "setup.sh"}
FILES |= {"work/setup.sh"}
DIRECTORIES = {"/tmp", "/home/me", "/home/me/work", "~me", "work", "/scripts"}


def machine(environment: Mapping[str, str] | None = None, files: set[str] = FILES, platform: str = "linux") -> Any:
    """Return a machine with these variables and files, and the directories above."""
    return Surroundings(
        environment=environment or {},
        home="/home/me",
        platform=platform,
        exists=(files | DIRECTORIES).__contains__,
        is_file=files.__contains__,
        is_directory=DIRECTORIES.__contains__,
    )


def plan(
    *actions: VarAction,
    on: Surroundings | None = None,
    connection_file: str = "/run/k.json",
    working_directory: str = "/tmp",
    inherited: Mapping[str, str] | None = None,
    **members: Any,
) -> LaunchPlan:
    """Return the plan for a request with these members."""
    return make_launch_plan(
        NewSession(**{"session_id": "s", "argv": ("kernel", "{connection_file}"), **members}),
        actions=actions,
        connection_file=connection_file,
        working_directory=working_directory,
        surroundings=on or machine(),
        inherited=inherited,
    )


# The command line


@pytest.mark.parametrize(
    ("argument", "filled_in"),
    [
        ("{connection_file}", "/run/k.json"),
        ("--f={connection_file}", "--f=/run/k.json"),
        ("{connection_file}:{connection_file}", "/run/k.json:/run/k.json"),
        ("{log_file} {profile_file} {resource_dir}", "{log_file} {profile_file} {resource_dir}"),
        ("{Connection_File} {connection-file}", "{Connection_File} {connection-file}"),
        ("{0} {} %s $X `id`", "{0} {} %s $X `id`"),
        ("", ""),
    ],
)
def test_connection_file_is_the_only_placeholder(argument: str, filled_in: str) -> None:
    """It is replaced wherever it stands, and nothing else is."""
    assert ("kernel", filled_in) == plan(argv=("kernel", argument)).argv


def test_program_can_be_a_placeholder_too() -> None:
    """Every word of the command line is looked at, the first as well."""
    found = plan(argv=("{connection_file}.sh",))

    assert (("/run/k.json.sh",), "/run/k.json.sh") == (found.argv, found.program)


def test_path_is_quoted_after_it_was_filled_in() -> None:
    """Blanks and quotes in the connection file's path do not reach the shell's grammar; the program stays as it was."""
    found = plan(connection_file="/a b/it's.json", startup_environment="shell")

    assert ("/bin/bash", "--login", "-c", "exec kernel '/a b/it'\"'\"'s.json'") == found.argv
    assert found.program == "kernel"


def test_session_without_argv_cannot_be_launched() -> None:
    """Such a session is for adoption only."""
    with pytest.raises(StartupError, match="only adopt") as info:
        plan(argv=())

    assert info.value.code == "KS-5"


# The environment


def test_actions_are_applied_in_order_to_the_servers_environment() -> None:
    """The plan has the actions in force, not those of the request, after what is inherited; the base stays."""
    base = {"PATH": "/bin", "KEPT": "1"}
    found = plan(
        VarAction(APPEND, "PATH", ":/usr/bin"),
        VarAction(PREPEND, "PATH", "/opt:"),
        VarAction(REPLACE, "NEW", "a"),
        VarAction(APPEND, "HANDLE", "!"),
        on=machine(base),
        inherited={"HANDLE": "7"},
        env=(VarAction(REPLACE, "PATH", "of the request"),),
    )

    assert {"PATH": "/opt:/bin:/usr/bin", "KEPT": "1", "NEW": "a", "HANDLE": "7!"} == found.environment
    assert base == {"PATH": "/bin", "KEPT": "1"}


def test_names_are_in_upper_case_on_windows_only() -> None:
    """Windows knows no case in names; elsewhere it matters."""
    base = {"Path": "a"}
    action = VarAction(APPEND, "PATH", ";b")

    assert {"PATH": "a;b"} == plan(action, on=machine(base, platform="win32")).environment
    assert {"Path": "a", "PATH": ";b"} == plan(action, on=machine(base)).environment


def test_plan_can_be_logged_without_its_environment() -> None:
    """Environments hold secrets, so the plan's repr has none of it."""
    assert "hunter2" not in repr(plan(VarAction(REPLACE, "PASSWORD", "hunter2")))


# Startup environments


@pytest.mark.parametrize(
    ("mode", "argument", "flag", "stage", "warnings"),
    [
        ("none", None, None, None, []),
        ("none", "ignored", None, None, ["takes no argument"]),
        ("shell", None, "--login", None, []),
        ("shell", "ignored", "--login", None, ["takes no argument"]),
        ("command", "module load R", "--login -i", "command", []),
        ("command", None, "--login", None, ["has no argument"]),
        ("script", "/setup.sh", "--login -i", "script", []),
        ("script", "", "--login", None, ["has no argument"]),
    ],
)
def test_mode_and_argument_decide_how_the_shell_is_started(
    mode: str, argument: str | None, flag: str | None, stage: str | None, warnings: list[str]
) -> None:
    """A command or a script wants a login shell that is interactive, all else a login shell; what does not fit is a
    warning.
    """
    found = plan(startup_environment=mode, startup_environment_arg=argument)

    if flag is None:
        assert ("kernel", "/run/k.json") == found.argv
        assert found.shell is None
    else:
        assert ("/bin/bash", *flag.split(), "-c") == found.argv[:-1]
        assert found.argv[-1].endswith("exec kernel /run/k.json")
        assert found.shell == "/bin/bash"
    assert (stage, argument if stage else None) == (found.stage, found.stage_argument)
    assert len(warnings) == len(found.warnings)
    assert all(words in warning for words, warning in zip(warnings, found.warnings, strict=True))


@pytest.mark.parametrize(
    ("name", "login_flag"),
    [
        ("bash", "--login"),
        ("zsh", "--login"),
        ("sh", "-l"),
        ("dash", "-l"),
        ("csh", "-d"),
        ("tcsh", "-d"),
        ("fish", "-l"),
        ("ksh93", "-l"),
    ],
)
def test_flags_fit_the_shell(name: str, login_flag: str) -> None:
    """The shell's base name tells how it is made a login shell; every shell is made interactive in the same way, on top
    of that.
    """
    path = f"/opt/{name}"
    on = machine({"SHELL": path}, {path})
    login = plan(on=on, startup_environment="shell")
    interactive = plan(on=on, startup_environment="command", startup_environment_arg="true")

    assert (path, login_flag) == login.argv[:2]
    assert (path, login_flag, "-i", "-c") == interactive.argv[:4]


@pytest.mark.parametrize(
    ("server_shell", "files", "shell"),
    [
        ("/bin/zsh", {"/bin/zsh", "/bin/bash"}, "/bin/zsh"),
        ("/no/such/shell", {"/bin/bash", "/bin/sh"}, "/bin/bash"),
        ("zsh", {"/bin/zsh", "/bin/bash"}, "/bin/bash"),
        ("", {"/bin/bash", "/bin/sh"}, "/bin/bash"),
        (None, {"/bin/sh"}, "/bin/sh"),
    ],
)
def test_shell_is_the_servers_own_where_it_is_there(server_shell: str | None, files: set[str], shell: str) -> None:
    """A SHELL that is not there, or that is no path, gives way to bash and then to sh."""
    on = machine({} if server_shell is None else {"SHELL": server_shell}, files)

    assert shell == plan(on=on, startup_environment="shell").shell


def test_shell_of_the_sessions_environment_does_not_matter() -> None:
    """A session's SHELL is for its kernel; the kernel's own shell is the server's."""
    found = plan(VarAction(REPLACE, "SHELL", "/bin/zsh"), on=machine({"SHELL": "/bin/sh"}), startup_environment="shell")

    assert ("/bin/sh", "/bin/zsh") == (found.argv[0], found.environment["SHELL"])


@pytest.mark.parametrize("mode", ["shell", "command"])
def test_machine_without_a_shell_starts_the_kernel_itself(mode: str) -> None:
    """Then there is no stage either, and a warning."""
    found = plan(on=machine(files=set()), startup_environment=mode, startup_environment_arg="true")

    assert (("kernel", "/run/k.json"), None, None) == (found.argv, found.shell, found.stage)
    assert len(found.warnings) == 1
    assert "no shell" in found.warnings[0]


def test_startup_environment_is_nothing_to_windows() -> None:
    """There is no shell there, and no script has to be there; whoever asked for one is told."""
    on = machine({"SHELL": "/bin/bash"}, platform="win32")
    found = plan(on=on, startup_environment="script", startup_environment_arg="/no/such/script")

    assert (("kernel", "/run/k.json"), None) == (found.argv, found.stage)
    assert ("Windows has no startup environments; script is ignored",) == found.warnings
    assert () == plan(on=on, startup_environment="none").warnings


@pytest.mark.parametrize(
    ("path", "on_windows", "elsewhere"),
    [
        ("~", "/home/me", "/home/me"),
        ("~/x", "/home/me/x", "/home/me/x"),
        (r"~\x", r"/home/me\x", r"~\x"),
        ("~x", "~x", "~x"),
        ("", "", ""),
    ],
)
def test_home_is_meant_by_a_tilde_before_either_slash_on_windows(path: str, on_windows: str, elsewhere: str) -> None:
    """A backslash is a character of a name elsewhere."""
    assert (on_windows, elsewhere) == (machine(platform="win32").expand(path), machine().expand(path))


def test_library_path_is_set_behind_the_shell_on_macos_only() -> None:
    """macOS takes DYLD_LIBRARY_PATH away when a login shell starts, so the shell sets what the kernel is to have."""
    action = VarAction(APPEND, "DYLD_LIBRARY_PATH", ":/b c")
    base = {"DYLD_LIBRARY_PATH": "/a"}
    on_macos, on_linux = (
        plan(action, on=machine(base, platform=platform), startup_environment="shell")
        for platform in ("darwin", "linux")
    )

    assert on_macos.argv[3] == "export DYLD_LIBRARY_PATH='/a:/b c' && exec kernel /run/k.json"
    assert on_linux.argv[3] == "exec kernel /run/k.json"


# Scripts


@pytest.mark.parametrize(
    ("script", "working_directory", "sourced"),
    [
        ("/setup.sh", "/tmp", "/setup.sh"),
        ("setup.sh", "/home/me/work", "/home/me/work/setup.sh"),
        ("work/setup.sh", "/home/me", "/home/me/work/setup.sh"),
        ("~/setup.sh", "/tmp", "/home/me/setup.sh"),
        ("setup.sh", "~", "/home/me/setup.sh"),
        ("setup.sh", "~/work", "/home/me/work/setup.sh"),
        # The shell is in that directory already, and would look for a bare name in PATH.
        ("setup.sh", "work", "./setup.sh"),
        ("setup.sh", "", "./setup.sh"),
        ("work/setup.sh", "", "./work/setup.sh"),
    ],
)
def test_script_is_sourced_from_where_it_is(script: str, working_directory: str, sourced: str) -> None:
    """An absolute path counts as it is, one with ``~`` from home, another from the session's directory."""
    found = plan(working_directory=working_directory, startup_environment="script", startup_environment_arg=script)

    assert f"{{ . {sourced}\n}}" in found.argv[-1]
    assert sourced == found.stage_argument


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("/no/such/script", "/no/such/script"),
        ("missing.sh", "/tmp/missing.sh"),
        ("~/missing.sh", "/home/me/missing.sh"),
        ("/scripts", "/scripts"),
    ],
)
def test_script_that_is_no_file_fails_the_start_and_is_named(script: str, path: str) -> None:
    """A script that is not there, or is a directory, is KS-5 before anything is launched."""
    with pytest.raises(StartupError) as info:
        plan(startup_environment="script", startup_environment_arg=script)

    assert info.value.code == "KS-5"
    assert f" {path} " in info.value.message


# The directory


@pytest.mark.parametrize(
    ("working_directory", "planned", "warned"),
    [
        ("/tmp", "/tmp", False),
        ("~", "/home/me", False),
        ("~/work", "/home/me/work", False),
        ("~me", "~me", False),
        ("", None, False),
        ("/no/such/directory", None, True),
        ("/setup.sh", None, True),
        ("~/missing", None, True),
    ],
)
def test_directory_that_is_none_gives_way_to_the_servers_own(
    working_directory: str, planned: str | None, warned: bool
) -> None:
    """``~`` alone or before a slash is home; what is no directory is a warning and never fails the start."""
    found = plan(working_directory=working_directory)

    assert planned == found.working_directory
    assert [working_directory] * warned == [warning.split()[0] for warning in found.warnings]
    assert found.moved_to is None


@pytest.mark.parametrize(
    ("now", "created_with", "planned", "moved_to"),
    [
        ("/gone", "/tmp", "/tmp", "/tmp"),
        ("/gone", "~/work", "/home/me/work", "/home/me/work"),
        ("/gone", "", None, None),
        ("/gone", "/gone", None, None),
        ("/gone", "/gone/too", None, None),
        ("/home/me", "/tmp", "/home/me", None),
    ],
)
def test_directory_that_is_gone_gives_way_to_the_one_at_the_creation(
    now: str, created_with: str, planned: str | None, moved_to: str | None
) -> None:
    """A restart where the kernel's last directory cannot be entered goes back to where the session began, if it can."""
    found = make_launch_plan(
        NewSession(session_id="s", argv=("kernel",), working_directory=created_with),
        actions=(),
        connection_file="f",
        working_directory=now,
        surroundings=machine(),
    )

    assert (planned, moved_to) == (found.working_directory, found.moved_to)
    assert (["/gone"] if now == "/gone" else []) == [warning.split()[0] for warning in found.warnings]


def test_script_is_looked_for_where_the_kernel_starts() -> None:
    """A relative script counts from the session's own directory, where the last one is gone."""
    request = NewSession(
        session_id="s",
        argv=("kernel",),
        working_directory="/home/me/work",
        startup_environment=StartupEnvironment.SCRIPT,
        startup_environment_arg="setup.sh",
    )
    found = make_launch_plan(
        request, actions=(), connection_file="f", working_directory="/gone", surroundings=machine()
    )

    assert "/home/me/work/setup.sh" == found.stage_argument


def test_every_warning_is_in_the_plan() -> None:
    """A bad directory and an argument that does not fit are both told."""
    found = plan(working_directory="/nowhere", startup_environment="shell", startup_environment_arg="ignored")

    assert len(found.warnings) == 2
    assert "/nowhere is no directory" in found.warnings[0]
    assert "no argument" in found.warnings[1]


# Programs, protocol versions, names


def test_program_is_named_with_its_place_on_windows() -> None:
    """There the system would look in the server's PATH; the kernel's own decides."""
    on = machine({"Path": "C:\\server"}, {"C:\\R\\R.exe", "C:\\server\\R.exe"}, platform="win32")
    found = plan(VarAction(PREPEND, "PATH", "C:\\R;"), on=on, argv=("R", "x"))

    assert ("C:\\R\\R.exe", "x") == found.argv


@pytest.mark.parametrize(
    ("program", "members", "missing"),
    [
        ("k", {}, "k"),
        ("k", {"env": (VarAction(PREPEND, "PATH", "/opt:"),)}, None),
        ("k", {"env": (VarAction(APPEND, "PATH", ":/opt"),)}, None),
        ("k", {"env": (VarAction(REPLACE, "PATH", "/opt"),)}, None),
        ("k", {"env": (VarAction(REPLACE, "PATH", "~/opt"),)}, "k"),
        ("cat", {"env": (VarAction(REPLACE, "PATH", "/opt"),)}, "cat"),
        ("cat", {}, None),
        *(("k", {"startup_environment": mode}, None) for mode in ("shell", "command", "script")),
        ("./k", {"startup_environment": "command", "startup_environment_arg": "cd /opt"}, None),
        ("/no/such/k", {"startup_environment": "shell"}, "/no/such/k"),
        ("/opt/k", {}, None),
        ("./k", {"working_directory": "/opt"}, None),
        ("./k", {"working_directory": "/tmp"}, "./k"),
        ("k", {"env": (VarAction(REPLACE, "PATH", "."),), "working_directory": "/opt"}, None),
        ("./here", {}, None),
        ("", {}, ""),
    ],
)
def test_program_is_looked_for_where_the_kernel_will_find_it(
    program: str, members: dict[str, Any], missing: str | None
) -> None:
    """In the PATH that the session gets; behind a shell, which may set another, only an absolute path is judged."""
    on = machine({"PATH": "/bin"}, {"/opt/k", "/opt/./k", "/bin/cat", "/bin/bash", "/server/./here"})
    request = NewSession(**{"session_id": "s", "argv": (program, "-f"), **members})

    assert missing == missing_program(request, on, "/server")


@pytest.mark.parametrize(("platform", "files"), [("win32", {"/bin/bash"}), ("linux", {"/bin/cat"})])
def test_program_is_looked_for_where_there_will_be_no_shell(platform: str, files: set[str]) -> None:
    """A startup environment that does not come about, on Windows or without any shell, promises no other PATH."""
    request = NewSession(session_id="s", argv=("k",), startup_environment=StartupEnvironment.SHELL)

    assert "k" == missing_program(request, machine({"PATH": "/opt"}, files, platform), "/")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        *((version, True) for version in ("5.5", "5.6", "5.10", "6.0", "05.05", "10.0")),
        *((version, False) for version in ("5.3", "5.4", "4.9", "5", "", "5.5.1", "5.x", "abc", "+5.5", "5.٥", "-6.0")),
    ],
)
def test_handshake_is_for_protocol_5_5_and_later(version: str, expected: bool) -> None:
    """Two plain numbers decide; what cannot be read as such means a connection file."""
    assert expected is uses_handshake(version)


def test_names_are_short_harmless_and_never_shared() -> None:
    """Whatever an id is made of, its name fits into a path; ids that look alike have different names."""
    ids = [
        "python-a1",
        "python-a2",
        "../../etc/passwd",
        "a/b",
        "a-b",
        "x" * 1000,
        "x" * 1001,
        "",
        "é",
        "\udc80",
        "~",
        "A",
        "a",
    ]
    names = [safe_name(session_id) for session_id in ids]

    assert len(set(names)) == len(ids)
    assert all(len(name) <= 24 and name.replace("-", "").isalnum() and name.isascii() for name in names)
    assert all(not name.startswith("-") for name in names)
