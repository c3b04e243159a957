"""Images become files, which do not stay for ever, and pictures in terminals that can show them."""

from __future__ import annotations

import base64
import io
import os
import select
import struct
import subprocess
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from command import COMMAND
from kallichore.cli.graphics import file_name, image_of, may_show_images
from kallichore.cli.images import KEPT, PREFIX, ImageFiles, remove_old_folders
from kallichore.cli.show import Printer
from kernels import REAL_TIME

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ENCODED = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("bundle", "image"),
    [
        ({}, None),
        ({"text/plain": "x"}, None),
        ({"image/svg+xml": "<svg/>", "image/png": ENCODED}, (".png", PNG)),
        ({"image/png": ENCODED[:10] + "\n" + ENCODED[10:]}, (".png", PNG)),
        ({"image/png": "x", "image/svg+xml": "<svg/>"}, (".svg", b"<svg/>")),
        ({"image/svg+xml": ["<svg>", "</svg>"]}, (".svg", b"<svg></svg>")),
        ({"image/gif": ENCODED}, (".gif", PNG)),
        ({"image/jpeg": None}, None),
    ],
)
def test_best_image_of_a_bundle_is_taken(bundle: dict[str, Any], image: tuple[str, bytes] | None) -> None:
    """One with pixels before drawings; what cannot be decoded is passed over."""
    assert image == image_of(bundle)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "foot"}, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, False),
        ({"KITTY_WINDOW_ID": "1"}, True),
        ({"KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux"}, False),
        ({"KITTY_WINDOW_ID": "1", "TERM": "screen-256color"}, False),
        ({"TERM": "xterm", "KALLICHORE_IMAGES": "1"}, True),
        ({"TERM": "xterm-kitty", "KALLICHORE_IMAGES": "0"}, False),
        ({"TERM": "xterm-kitty", "KALLICHORE_IMAGES": ""}, False),
    ],
)
def test_terminals_that_show_images_are_known(environ: dict[str, str], expected: bool) -> None:
    """By their variables; one of ours overrules that."""
    assert expected is may_show_images(environ)


def test_names_are_in_order() -> None:
    """Also in a listing."""
    assert ["image-001.png", "image-012.svg"] == [file_name(1, ".png"), file_name(12, ".svg")]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A folder that is named is made, and may have images of an earlier run."""
    first = [ImageFiles(tmp_path / "new").save(".png", b"1") for _ in range(2)]

    assert ["image-001.png", "image-002.png"] == [path.name for path in first]


@pytest.mark.posix_only("links that need no privilege")
def test_folders_of_ours_go_after_a_day(tmp_path: Path) -> None:
    """Others' folders, links, and what is newer stay."""
    old, new, other = (tmp_path / name for name in (f"{PREFIX}old", f"{PREFIX}new", "other"))
    for folder in (old, new, other):
        folder.mkdir()
        (folder / "image").touch()
        os.utime(folder, (0, 0) if folder != new else (KEPT, KEPT))
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(other)
    os.utime(link, (0, 0), follow_symlinks=False)
    remove_old_folders(tmp_path, KEPT * 1.5)

    assert {new, other, link} == set(tmp_path.iterdir())
    assert [other / "image"] == list(other.iterdir())


@pytest.mark.posix_only("modes of folders, and times of theirs that can be set")
def test_folder_of_our_own_is_made_for_the_first_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is its owner's only, and takes the place of those that are a day old."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old = tmp_path / f"{PREFIX}old"
    old.mkdir()
    os.utime(old, (0, 0))
    files = ImageFiles()
    before = list(tmp_path.iterdir())
    paths = [files.save(".png", PNG), files.save(".png", PNG)]

    assert [old] == before
    assert [paths[0].parent] == list(tmp_path.iterdir())
    assert paths[0].parent == paths[1].parent
    assert 0o700 == paths[0].parent.stat().st_mode & 0o777


def test_image_is_shown_and_its_path_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path is there in any case: an image in a terminal cannot be copied."""
    seen: list[Path] = []
    printer = Printer(ImageFiles(tmp_path, seen.append))
    message = {"header": {"msg_type": "display_data"}, "content": {"data": {"image/png": ENCODED, "text/plain": "x"}}}
    printer.show(message)

    assert [tmp_path / "image-001.png"] == seen
    assert f"{seen[0]}\n" == capsys.readouterr().out
    assert PNG == seen[0].read_bytes()


# At a terminal


class Terminal:
    """A terminal that tells, where it is asked, that it has sixel or not; 80 columns of 10 pixels.

    Args:
        answer: What it says that it is (DA1 of the VT520 manual): 4 stands for sixel.
    """

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        import fcntl
        import pty
        import termios

        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 800, 480))

    def show(self, *arguments: str, **environment: str) -> bytes:
        """Run kcclient in it, and return what it was sent."""
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=self.theirs, stdout=self.theirs, stderr=self.theirs,
            env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
        os.close(self.theirs)
        shown, asked = b"", 0
        try:
            while True:
                ready, _, _ = select.select([self._ours], [], [], REAL_TIME)
                assert ready, f"nothing came behind {shown!r}"
                try:
                    data = os.read(self._ours, 65536)
                except OSError:
                    break
                if not data:
                    break
                shown += data
                if shown.count(b"\x1b[c") > asked:
                    asked += 1
                    os.write(self._ours, self._answer)
            assert process.wait(REAL_TIME) == 0
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            os.close(self._ours)
        return shown


@pytest.mark.parametrize(
    ("term", "answer", "is_shown"),
    [("foot", b"\x1b[?62;4c", True), ("foot", b"\x1b[?62c", False), ("xterm", b"\x1b[?62;4c", False)],
)  # fmt: skip
@pytest.mark.posix_only("a terminal")
def test_terminal_that_can_is_shown_the_image(term: str, answer: bytes, is_shown: bool) -> None:
    """Only one that is known to, and says so when it is asked; the path is said to all."""
    image = io.BytesIO()
    PIL.Image.new("RGB", (40, 40), "red").save(image, "PNG")
    encoded = base64.b64encode(image.getvalue()).decode()
    code = f"from IPython.display import display; display({{'image/png': '{encoded}'}}, raw=True)"
    shown = Terminal(answer).show("exec", code, TERM=term, TERM_PROGRAM="")

    # The device control string that sixels are in.
    assert is_shown == (b"\x1bP" in shown)
    assert b"image-001.png" in shown
