"""Pages that say what the code says: a line ``<!-- generated: NAME -->`` gives way to text made while building, and the
line below it, which is for readers of the source, goes.

What is made here cannot drift: the API's description, the commands' own help, the settings and the errors.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import openapi
from click.testing import CliRunner
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import ExtensionMetadata

from kallichore import errors
from kallichore.cli.kcclient import main as kcclient
from kallichore.config import ServerConfig

ROOT = Path(__file__).parents[2]
WIDTH = 100
"""Columns of help texts."""

_MARK = re.compile(r"^<!-- generated: (\w+) -->\n\*This part is made .*\*$", re.MULTILINE)


def _http_api() -> str:
    return openapi.render(json.loads((ROOT / "kallichore.json").read_text(encoding="utf-8")))


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


def _kcserver() -> str:
    command = [sys.executable, "-m", "kallichore.cli.kcserver", "--help"]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "PYTHONPATH": str(ROOT)}
    return _block(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def _kcclient() -> str:
    pages = [_block(_help())]
    for name in sorted(kcclient.commands):
        pages.append(f"### `{name}`\n\n{_block(_help(name))}")
    return "\n".join(pages)


def _help(*command: str) -> str:
    result = CliRunner().invoke(
        kcclient, [*command, "--help"], prog_name="kcclient", terminal_width=WIDTH, catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def _configuration() -> str:
    documents = ModuleAnalyzer.for_module("kallichore.config").find_attr_docs()
    lines = ["| Setting | Type | Default | Meaning |", "|---|---|---|---|"]
    for field in attrs.fields(ServerConfig):
        kind = str(field.type).replace("|", "\\|")
        text = " ".join(documents["ServerConfig", field.name]).strip().replace("``", "`")
        lines.append(f"| `{field.name}` | `{kind}` | {_default(field.default)} | {text} |")
    return "\n".join(lines)


def _default(default: object) -> str:
    return "a new one" if isinstance(default, attrs.Factory) else f"`{default!r}`"  # type: ignore[arg-type]


def _errors() -> str:
    lines = ["| Error | Is a | Code | HTTP status | Meaning |", "|---|---|---|---|---|"]
    for kind in _family(errors.KallichoreError):
        parent = kind.__bases__[0].__name__
        meaning = (kind.__doc__ or "").partition("\n")[0].replace("``", "`")
        code = f"`{kind.code}`" if kind.code else ""
        lines.append(f"| `{kind.__name__}` | `{parent}` | {code} | {kind.http_status} | {meaning} |")
    return "\n".join(lines)


def _family(kind: type[errors.KallichoreError]) -> Iterator[type[errors.KallichoreError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _family(child)


_MAKERS = {
    "http_api": _http_api,
    "kcserver": _kcserver,
    "kcclient": _kcclient,
    "configuration": _configuration,
    "errors": _errors,
}


def _fill_in(app: Sphinx, page: str, source: list[str]) -> None:
    if _MARK.search(source[0]):
        # A page like this is as new as the code, whatever its file's date.
        app.env.note_reread()
        source[0] = _MARK.sub(lambda mark: _MAKERS[mark[1]](), source[0])


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register with Sphinx."""
    app.connect("source-read", _fill_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
