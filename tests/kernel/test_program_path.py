"""Where a kernel's program is, on POSIX systems and on Windows."""

from __future__ import annotations

import pytest

from kallichore.kernel.program_path import find_program


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("/usr/bin/R", "/usr/bin/R"),
        ("/usr/bin/missing", None),
        ("R", "/usr/bin/R"),
        ("both", "/first/both"),
        ("missing", None),
        ("", None),
        ("./k", "/work/./k"),
        ("bin/k", "/work/bin/k"),
        ("here", "/work/here"),
        ("tool", "/work/tools/tool"),
    ],
)
def test_program_is_found_by_path_or_by_name(program: str, found: str | None) -> None:
    """A bare name is looked up in PATH, first entry first; what is relative, or empty in PATH, counts from the
    session's directory.
    """
    files = {"/usr/bin/R", "/first/both", "/usr/bin/both", "/work/./k", "/work/bin/k", "/k", "R"}
    files |= {"/work/here", "/work/tools/tool", "here", "tools/tool"}
    path = find_program(
        program,
        {"PATH": "/first::/usr/bin:tools"},
        directory="/work",
        platform="linux",
        is_file=files.__contains__,
    )

    assert found == path


FILES = {
    r"C:\R\R.exe",
    r"C:\R\tool.bat",
    r"C:\R\tool.exe",
    r"C:\R\plain",
    r"C:\R\plain.cmd",
    r"C:\R\script.vbs",
    r"C:\R\odd.exe.exe",
    r"C:\work\bin\k.exe",
    r"C:\work\bin/k.exe",
    r"C:\work\tools\own.exe",
    r"D:\R\R.exe",
    r"\\host\share\k.exe",
}


@pytest.mark.parametrize(
    ("program", "found"),
    [
        (r"C:\R\R.exe", r"C:\R\R.exe"),
        (r"C:\R\R", r"C:\R\R.exe"),
        (r"D:\R\R.exe", r"D:\R\R.exe"),
        (r"\\host\share\k", r"\\host\share\k.exe"),
        (r"\R\R", r"C:\R\R.exe"),
        (r"C:\R\missing", None),
        ("R", r"C:\R\R.exe"),
        ("R.exe", r"C:\R\R.exe"),
        ("tool", r"C:\R\tool.exe"),
        ("tool.bat", r"C:\R\tool.bat"),
        ("plain", r"C:\R\plain.cmd"),
        ("script", None),
        ("script.vbs", r"C:\R\script.vbs"),
        ("odd.exe", r"C:\R\odd.exe.exe"),
        (r"bin\k", r"C:\work\bin\k.exe"),
        ("bin/k", r"C:\work\bin/k.exe"),
        ("own", r"C:\work\tools\own.exe"),
        ("k", None),
        ("", None),
    ],
)
def test_windows_rules_of_paths_and_extensions_hold(program: str, found: str | None) -> None:
    """Drives, shares and both slashes are understood; an extension may be left out, whatever the kernel's PATHEXT has
    that can be started.
    """
    environment = {"PATH": r"C:\none;;C:\R;tools", "PATHEXT": ".VBS;.EXE;.BAT;.CMD"}
    path = find_program(program, environment, directory=r"C:\work", platform="win32", is_file=FILES.__contains__)

    assert found == path


@pytest.mark.parametrize(
    ("environment", "program", "found"),
    [
        ({"PATH": r"C:\R", "PATHEXT": ".BAT;.EXE"}, "tool", r"C:\R\tool.bat"),
        ({"PATH": r"C:\R", "PATHEXT": ".PY"}, "tool", r"C:\R\tool.exe"),
        ({"PATH": r"C:\R"}, "tool", r"C:\R\tool.exe"),
        ({"PATH": r'"C:\R"'}, "R", r"C:\R\R.exe"),
        ({"PATH": ""}, "R", None),
        ({}, "R", None),
    ],
)
def test_the_kernels_own_environment_decides_on_windows(
    environment: dict[str, str], program: str, found: str | None
) -> None:
    """The order of PATHEXT counts, and without one the usual; there may be quotes in PATH, and there may be none."""
    path = find_program(program, environment, directory=r"C:\work", platform="win32", is_file=FILES.__contains__)

    assert found == path
