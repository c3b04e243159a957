"""axe-core, which knows what hinders people who see, hear or type in other ways; from npm, kept in the cache."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from chromium import Page

PACKAGE = "axe-core@4.14.1"
INTEGRITY = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
"""SHA-512 of its archive, as the registry says it."""

FETCH_LIMIT = 60.0

RUN = "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)"


def find_axe() -> str:
    """Return its source; it is fetched once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kallichore-node"
    kept = cache / f"{PACKAGE}.js"
    if not kept.exists():
        if shutil.which("npm") is None:
            pytest.skip("there is no npm here to fetch axe-core with")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as place:
            _fetch(Path(place)).replace(kept)
    return kept.read_text(encoding="utf-8")


def _fetch(place: Path) -> Path:
    command = ["npm", "pack", PACKAGE, "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=FETCH_LIMIT)
    if done.returncode:
        pytest.skip(f"npm cannot fetch axe-core: {done.stderr.strip().splitlines()[-1:]}")
    archive = next(place.glob("*.tgz"))
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    assert INTEGRITY == digest
    with tarfile.open(archive) as packed:
        packed.extract("package/axe.min.js", place, filter="data")
    return place / "package" / "axe.min.js"


async def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with what a page shows, one line each."""
    await page.evaluate(f"{find_axe()}; true")
    found: list[dict[str, Any]] = await page.evaluate(RUN)
    return [f"{each['help']} ({each['id']}): {[node['html'][:200] for node in each['nodes'][:3]]}" for each in found]
