"""Kernels in batch jobs of a Slurm cluster.

The batch script is the host itself (`kallichore.engines.host_program`), handed to ``sbatch`` on its standard input: no
file system has to be shared, no port be open on a node, nothing be installed there but a Python. It calls the server.

A job is known by its name before it is submitted. ``sbatch`` may fail because nobody answered in time, and the job run
nevertheless; then its name is looked up, and nothing is submitted again before Slurm has said that there is no such
job. The same name finds it again for the next server, and what nobody claims is ended by a sweep.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import attrs
import trio

from kallichore.engines.engine import EngineServices, Order, Ticket, Waiting
from kallichore.engines.host_program import dial_document, host_script
from kallichore.engines.slurm_answers import QueuedJob, oldest, read_job_id
from kallichore.engines.slurm_commands import SlurmSilentError, run_slurm
from kallichore.engines.slurm_job import LostJob, SlurmJob, Way, cancel_job
from kallichore.engines.slurm_options import (
    SlurmOptions,
    is_job_of,
    job_name,
    job_script,
    read_options,
    sbatch_arguments,
)
from kallichore.engines.slurm_watch import QueueWatch, SharedQuestion, ask_jobs, ask_queue
from kallichore.engines.slurm_words import describe_refusal
from kallichore.errors import ConfigurationError, EngineError

logger = logging.getLogger(__name__)

PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel")
"""What has to be there. ``sacct`` tells who cancelled a job, where there is accounting, and may be missing."""

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # it is somebody else who listens there
"""Addresses at which all that reaches a machine is listened for, and nobody can call."""

AT_ONCE = 8
"""Programs that submit at the same time: a hundred sessions that begin together are no hundred processes."""

SILENCE_PAUSE = 5.0
"""Seconds until a controller that did not answer is asked again; it is given ten each time."""

LOOKS, LOOK_PAUSE = 2, 3.0
"""How often a job has to be found missing until it is submitted again, and seconds between: a controller that stood
still takes up what waits for it in any order, and may answer a question before it takes in a job sent before that."""

FIRST_SWEEP, SWEEP_PAUSE = 120.0, 300.0
"""Seconds after which jobs that nobody claims are looked for, and between two such looks. Who comes after a server
that ended has to find its sessions first."""

LAST_SWEEP = 5.0
"""Seconds in which a server that ends may end what it could not before."""

LEFT_PAUSE = 5.0
"""Seconds after which a job that could not be ended is tried again."""


@attrs.define(eq=False)
class _Claim:
    """A session's hold on a name; the number is None until it is known."""

    job_id: str | None = None


class SlurmEngine:
    """See `kallichore.engines.engine.Engine`. Made by `open_engine`.

    Args:
        services: The server's.
        watch: Asks Slurm for the jobs of all sessions.
    """

    kind = "slurm"

    def __init__(self, services: EngineServices, watch: QueueWatch) -> None:
        self._services, self._watch = services, watch
        self._own_jobs = SharedQuestion(_ask_own_jobs)
        self._claims: dict[str, _Claim] = {}
        self._left: set[str] = set()
        """Names of jobs that nobody wants and that may be there."""
        self._has_left = trio.Event()
        self._at_once = trio.CapacityLimiter(AT_ONCE)

    def __repr__(self) -> str:
        return f"<SlurmEngine with {len(self._claims)} jobs>"

    def check_options(self, options: Mapping[str, Any]) -> None:
        """See that options can be understood; raises `EngineError`."""
        read_options(options)

    async def check(self, options: Mapping[str, Any]) -> Sequence[str]:
        """Return what is wrong with a profile: Slurm itself is asked whether such a job could run."""
        try:
            wanted = read_options(options)
        except EngineError as error:
            return [error.message]
        wrong = [
            f"Slurm's program {program} is not on this machine" for program in PROGRAMS if not shutil.which(program)
        ]
        try:
            self._services.desk()
        except ConfigurationError as error:
            wrong.append(error.message)
        if not wrong:
            arguments = sbatch_arguments(wanted, job_name("check", self._services.owner, secrets.token_bytes(8)))
            try:
                said = await run_slurm("sbatch", "--test-only", *arguments, given=b"#!/bin/sh\n")
            except SlurmSilentError as error:
                return [str(error.strerror)]
            if said.code:
                wrong.append(f"Slurm refuses such a job: {describe_refusal(said.complaint)}")
        return wrong

    async def kernelspecs(self, options: Mapping[str, Any]) -> None:
        """Return None: what is installed on a node is known when a job is there."""

    def ticket(self, order: Order) -> Ticket:
        """Return the name of a job, and by what its host is known when it calls."""
        name = job_name(order.label, self._services.owner, secrets.token_bytes(8))
        return {"name": name, "call": secrets.token_hex(16)}

    @asynccontextmanager
    async def open_job(
        self, order: Order, ticket: Ticket, tell: Callable[[Waiting | None], None], *, is_new: bool
    ) -> AsyncIterator[SlurmJob | LostJob]:
        """Submit a job, or find it again; see `kallichore.engines.engine.Engine.open_job`.

        Where Slurm does not answer this waits until it does. A submission that is cancelled in its middle leaves a job
        that is ended as soon as Slurm answers.
        """
        try:
            desk = self._services.desk()
        except ConfigurationError as error:
            raise EngineError(error.message) from error
        name, began, options = ticket["name"], time.time(), read_options(order.options)
        address = _address(options, desk.address)
        with desk.register(bytes.fromhex(ticket["call"])) as registration, self._claim(name) as claim:

            def say(reason: str) -> None:
                tell(Waiting(reason, began))

            if is_new:
                script = job_script(options, _host(order, ticket, address, desk.certificate))
                claim.job_id = await self._submit(name, sbatch_arguments(options, name), script, say)
            else:
                claim.job_id = await self._find(name, say)
            if claim.job_id is None:
                yield LostJob(name)
                return
            way = Way(registration.next_connection, self._watch.hurry, "{}:{}".format(*address), is_new)
            job = SlurmJob(claim.job_id, way, tell, began, lambda: self._leave(name))
            with self._watch.follow(job.job_id, job.take):
                yield job

    @contextmanager
    def _claim(self, name: str) -> Iterator[_Claim]:
        claim = self._claims[name] = _Claim()
        try:
            yield claim
        finally:
            del self._claims[name]

    # Submitting

    async def _submit(self, name: str, arguments: Sequence[str], script: bytes, say: Callable[[str], None]) -> str:
        """Return the number of a new job; there is one of it, and of one that was refused none."""
        if not shutil.which("sbatch"):
            raise EngineError("Slurm's program sbatch is not on this machine")
        try:
            while True:
                try:
                    async with self._at_once:
                        said = await run_slurm("sbatch", *arguments, given=script)
                except SlurmSilentError as error:
                    say(str(error.strerror))
                else:
                    if said.code:
                        raise EngineError(f"Slurm refuses the job: {describe_refusal(said.complaint)}")
                    if job_id := read_job_id(said.output):
                        return job_id
                # It may be there, or be on its way there.
                if found := await self._find(name, say):
                    return found
        except EngineError:
            raise
        except BaseException:
            # Cancelled: whether Slurm has it is not known, and nobody will wait to know.
            self._leave(name)
            raise

    async def _find(self, name: str, say: Callable[[str], None]) -> str | None:
        """Return the number of a job with this name; None when Slurm is sure that there is none."""
        looks = 0
        while looks < LOOKS:
            if looks:
                await trio.sleep(LOOK_PAUSE)
            try:
                jobs = [job for job in await self._own_jobs.ask() if job.name == name]
            except SlurmSilentError as error:
                say(str(error.strerror))
                await trio.sleep(SILENCE_PAUSE)
                continue
            if jobs:
                return oldest(jobs).job_id
            looks += 1
        return None

    # What is left

    def _leave(self, name: str) -> None:
        """Have jobs with this name ended as soon as Slurm takes that in."""
        self._left.add(name)
        self._has_left.set()

    async def sweep(self) -> None:
        """End again and again what nobody wants. Cancelling leaves the rest."""
        full_at = trio.current_time() + FIRST_SWEEP
        while True:
            with trio.move_on_at(full_at):
                await self._has_left.wait()
                await trio.sleep(LEFT_PAUSE)
            is_full = trio.current_time() >= full_at
            with suppress(SlurmSilentError):
                await self.sweep_once(is_full=is_full)
            if is_full:
                full_at = trio.current_time() + SWEEP_PAUSE

    async def sweep_once(self, *, is_full: bool) -> None:
        """End what nobody wants.

        Args:
            is_full: Whether it is looked for what servers before this one may have left, as well.

        Raises:
            SlurmSilentError: Slurm does not answer.
        """
        jobs = await self._own_jobs.ask()
        unwanted = [job for job in jobs if not job.is_over and self._is_unwanted(job, is_full=is_full)]
        kept = {job.name for job in unwanted}
        for job in unwanted:
            logger.warning("Job %s, %s, is nobody's any more, and is ended", job.job_id, job.name)
            if await cancel_job(job.job_id):
                kept.discard(job.name)
        self._left &= kept
        if not self._left:
            self._has_left = trio.Event()

    async def sweep_last(self) -> None:
        """End once more what could not be ended, if there is something; the next server has its name no more."""
        if self._left:
            with suppress(SlurmSilentError):
                await self.sweep_once(is_full=False)

    def _is_unwanted(self, job: QueuedJob, *, is_full: bool) -> bool:
        claim = self._claims.get(job.name)
        if job.name in self._left:
            return True
        if not is_full or not is_job_of(job.name, self._services.owner):
            return False
        # Two of one name are there where Slurm took in both of two submissions of which it answered one.
        return claim is None or claim.job_id not in (None, job.job_id)


def _address(options: SlurmOptions, listening: tuple[str, int]) -> tuple[str, int]:
    """Return where a host is to call, given where it is listened."""
    host = options.server or (socket.gethostname() if listening[0] in EVERYWHERE else listening[0])
    return host, listening[1]


def _host(order: Order, ticket: Ticket, address: tuple[str, int], certificate: str) -> bytes:
    """Return the program of a job's host."""
    dial = dial_document(address, bytes.fromhex(ticket["call"]), certificate)
    document = order.document(
        stays=True,
        dial=dial,
        # Else steps, as those of srun in a cell, begin with as little of an environment as the job was given.
        actions=[["replace", "SLURM_EXPORT_ENV", "ALL"], *map(list, order.actions)],
        directory=order.working_directory or "~",
    )
    return host_script(document, shebang="")


async def _ask_own_jobs() -> Sequence[QueuedJob]:
    """Ask for all jobs of our user."""
    if sys.platform == "win32":
        raise NotImplementedError
    return await ask_queue(f"--user={os.geteuid()}")


@asynccontextmanager
async def open_engine(services: EngineServices) -> AsyncIterator[SlurmEngine]:
    """Have Slurm for the block. Leaving it leaves all jobs as they are, but those that were to be ended already.

    Args:
        services: What it needs of its server.
    """
    watch = QueueWatch(ask_jobs)
    engine = SlurmEngine(services, watch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        nursery.start_soon(engine.sweep)
        try:
            yield engine
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.move_on_after(LAST_SWEEP):
                await engine.sweep_last()
