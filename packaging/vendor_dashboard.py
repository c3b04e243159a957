"""Put into the dashboard what others wrote, with their licences: ``python packaging/vendor_dashboard.py``.

One file has both htm and Preact in it. Versions are fixed here, and the archives are checked; npm fetches them.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

STATIC = Path(__file__).parents[1] / "kallichore" / "dashboard" / "static"

ARCHIVES = {
    "htm@3.1.1": "983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
    "preact@10.5.13": "q/vlKIGNwzTLu+jCcvywgGrt+H/1P/oIRSD6mV4ln3hmlC+Aa34C7yfPI4+5bzW8pONyVXYS7SvXosy2dKKtWQ==",
}
"""Packages, and the SHA-512 of their archives, as the registry says it."""

FILES = {
    ("htm@3.1.1", "package/preact/standalone.module.js"): "preact-htm.js",
    ("htm@3.1.1", "package/LICENSE"): "HTM-LICENSE.txt",
    ("preact@10.5.13", "package/LICENSE"): "PREACT-LICENSE.txt",
}
"""What is taken out of them, and its name here. Preact is fetched for its licence."""


def main() -> None:
    """Fetch, check, and put in place."""
    with tempfile.TemporaryDirectory() as place:
        for name, integrity in ARCHIVES.items():
            archive = _fetch(name, Path(place))
            found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if found != integrity:
                raise SystemExit(f"{name} is another than expected: {found}")
            with tarfile.open(archive) as packed:
                for (package, member), target in FILES.items():
                    source = packed.extractfile(member) if package == name else None
                    if source is not None:
                        (STATIC / target).write_bytes(source.read())


def _fetch(name: str, place: Path) -> Path:
    command = ["npm", "pack", name, "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True)
    return place / done.stdout.split()[-1]


if __name__ == "__main__":
    main()
