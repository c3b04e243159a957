"""The page of the documentation that shows the figures: its tables and pictures are rewritten by what measures them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"

STYLE = """
    .page { fill: #ffffff }
    .axis { stroke: #8a9aa8; stroke-width: 1; fill: none }
    .grid { stroke: #dde3e8; stroke-width: 1 }
    .title { font: bold 14px sans-serif; fill: #16344d }
    .note { font: 12px sans-serif; fill: #3d5568 }
    .cool { stroke: #5b7c99; fill: #5b7c99 }
    .warm { stroke: #b3541e; fill: #b3541e }
    polyline.cool, polyline.warm { stroke-width: 2; fill: none }
    rect.cool, rect.warm, tspan.cool, tspan.warm { stroke: none }
    @media (prefers-color-scheme: dark) {
      .page { fill: #14191e }
      .axis { stroke: #5f7181 }
      .grid { stroke: #2b3640 }
      .title { fill: #d8e8f5 }
      .note { fill: #a5b8c7 }
      .cool { stroke: #6f93b3; fill: #6f93b3 }
      .warm { stroke: #ef9a66; fill: #ef9a66 }
    }
  """
"""Two colours, on light pages and on dark ones."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let the page be another one."""
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="the page to rewrite (performance.md)")


def picture(title: str, height: int, parts: list[str]) -> str:
    """Return an SVG of the page's width."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" role="img" aria-labelledby="title">'
    background = f'  <rect class="page" width="760" height="{height}" rx="8"/>'
    about = [f'  <title id="title">{title}</title>', f"  <style>{STYLE}</style>"]
    return "\n".join([head, *about, background, *parts, "</svg>\n"])


def rewrite(page: Path, name: str, text: str) -> None:
    """Put text between the page's marks of this name."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    before = page.read_text()
    assert marks.search(before), f"{page} has no place for {name}"
    page.write_text(marks.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", before))
