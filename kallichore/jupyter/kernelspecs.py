"""The installed kernels as Jupyter's API shows them, and the files that come with them."""

from __future__ import annotations

import json
import mimetypes
import os
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kallichore.jupyter.models import JupyterError
from kallichore.kernel.kernelspecs import NATIVE_KERNEL, KernelSpec, default_kernel, list_kernelspecs

_DEFAULTS: dict[str, Any] = {"env": {}, "metadata": {}, "interrupt_mode": "signal", "kernel_protocol_version": ""}

_OTHER_RESOURCES = ("kernel.js", "kernel.css")


def describe_kernelspecs(base_url: str) -> dict[str, Any]:
    """Return all of them, and which one is meant where none is named."""
    specs = list_kernelspecs()
    described = {name: describe_kernelspec(spec, base_url) for name, spec in specs.items()}
    return {"default": default_kernel(specs) or NATIVE_KERNEL, "kernelspecs": described}


def describe_kernelspec(spec: KernelSpec, base_url: str) -> dict[str, Any]:
    """Return one; its command line is as it is written."""
    document = {
        **_DEFAULTS,
        "argv": list(spec.argv),
        "display_name": spec.display_name,
        "language": spec.language,
        "env": spec.env,
        "interrupt_mode": spec.interrupt_mode.value,
        **_written(spec),
    }
    folder = Path(spec.resource_dir)
    files = sorted(each.name for each in folder.iterdir() if each.is_file()) if folder.is_dir() else []
    prefix = f"{base_url.rstrip('/')}/kernelspecs/{quote(spec.name)}"
    resources = {
        name if name in _OTHER_RESOURCES else Path(name).stem: f"{prefix}/{quote(name)}"
        for name in files
        if name.startswith("logo-") or name in _OTHER_RESOURCES
    }
    return {"name": spec.name, "spec": document, "resources": resources}


def _written(spec: KernelSpec) -> dict[str, Any]:
    try:
        written = json.loads((Path(spec.resource_dir) / "kernel.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return written if isinstance(written, dict) else {}


def read_resource(spec: KernelSpec, name: str) -> tuple[bytes, str]:
    """Return a file that comes with a kernel, and its content type. Nothing outside of its folder is read.

    Raises:
        JupyterError: There is no such file.
    """
    unknown = JupyterError(HTTPStatus.NOT_FOUND, f"Kernel {spec.name!r} has no file {name!r}")
    try:
        folder = Path(os.path.realpath(spec.resource_dir))
        file = Path(os.path.realpath(folder / name))
        if not file.is_relative_to(folder) or not os.path.isfile(file):
            raise unknown
        return file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    except (OSError, ValueError) as error:
        # A name with a NUL, or a file that may not be read.
        raise unknown from error
