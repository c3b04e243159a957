"""The warm kernels of a server, as the API shows them."""

from __future__ import annotations

from kallichore.kernel.resources import read_process
from kallichore.models.bodies import WarmKernel, WarmKernelList, WarmStatus
from kallichore.session.warm_pool import WarmPool


def describe_warm(pool: WarmPool) -> WarmKernelList:
    """Return what is kept ready, what was taken so far, and what is wrong with it."""
    stock = pool.stock
    kernels = []
    for kernel in pool.kernels:
        spare = kernel.spare
        reading = None if kernel.pid is None else read_process(kernel.pid)
        kernels.append(
            WarmKernel(
                status=WarmStatus.READY if spare.is_ready else WarmStatus.STARTING,
                working_directory=spare.recipe.directory,
                started=kernel.started,
                kernel=spare.owner.kernel,
                session_id=spare.owner.session_id,
                process_id=kernel.pid,
                memory_bytes=None if reading is None else reading.memory_bytes,
            )
        )
    return WarmKernelList(
        wanted=stock.wanted,
        taken=stock.taken,
        missed=stock.missed,
        kernels=tuple(kernels),
        problem=stock.problem or None,
    )
