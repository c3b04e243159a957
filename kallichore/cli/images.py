"""Images that kernels send: files whose paths are said, and pictures in terminals that can show them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs

from kallichore.cli.graphics import file_name, may_show_images

PREFIX = "kcclient-images-"
"""How the names of our folders begin, in the system's place for temporary files."""

KEPT = 24 * 3600.0
"""Seconds for which such a folder is kept: whoever saw a path can look at it that day."""

Show = Callable[[Path], None]


@attrs.define
class ImageFiles:
    """Puts images into files of a folder, which is made for the first.

    Args:
        directory: The folder; None for a new one of our own, which a later command removes when it is a day old.
        show: Shows an image file in the terminal; None where that is not possible.
    """

    directory: Path | None = None
    show: Show | None = None
    _count: int = attrs.field(default=0, init=False)

    def save(self, suffix: str, content: bytes) -> Path:
        """Put an image into a new file and return its path; nothing that is there is written over.

        Raises:
            OSError: The file could not be made.
        """
        if self.directory is None:
            remove_old_folders(Path(tempfile.gettempdir()), time.time())
            self.directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.directory.mkdir(parents=True, exist_ok=True)
        while True:
            self._count += 1
            path = self.directory / file_name(self._count, suffix)
            try:
                with open(path, "xb") as file:
                    file.write(content)
            except FileExistsError:
                continue
            return path


def remove_old_folders(place: Path, now: float) -> None:
    """Remove our own folders of images that are older than a day.

    Args:
        place: Where they are.
        now: The time, in seconds as of `time.time`.
    """
    for folder in place.glob(f"{PREFIX}*"):
        try:
            found = folder.lstat()
            # Others' are not ours to remove, and what a link leads to is no folder of ours.
            is_ours = sys.platform == "win32" or found.st_uid == os.getuid()
            if is_ours and now - found.st_mtime > KEPT:
                shutil.rmtree(folder)
        except OSError:
            continue


def find_display() -> Show | None:
    """Return what shows an image file in our terminal; None where it cannot, or the library for it is not installed.

    The terminal is asked which protocol it has. So this has to come before anybody reads what is typed.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty() and may_show_images(os.environ)):
        return None
    try:
        from rich.console import Console
        from textual_image import renderable
    except ImportError:
        return None
    if renderable.Image not in (renderable.SixelImage, renderable.TGPImage):
        return None
    console = Console()

    def show(path: Path) -> None:
        if path.suffix == ".svg":
            return
        # Whatever an image of somebody else's does to a decoder, and one too small for a letter; the path is said.
        with suppress(Exception):
            console.print(renderable.Image(path))

    return show
