"""Servers in this process with a state directory, one after another, for tests of what outlives them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kallichore.client.api_client import ApiClient
from kernels import open_client


@asynccontextmanager
async def keeping(place: Path, **settings: Any) -> AsyncIterator[ApiClient]:
    """Run a server that leaves its kernels to the next one."""
    async with open_client(state_directory=place / "state", shutdown_grace=0.5, **settings) as client:
        yield client


@asynccontextmanager
async def ending(place: Path, **settings: Any) -> AsyncIterator[ApiClient]:
    """Run a server that ends its kernels."""
    async with keeping(place, on_exit="stop", **settings) as client:
        yield client
