"""What may be asked of Slurm: what is understood reaches sbatch, and what is not is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.engines.slurm_options import (
    SlurmOptions,
    is_job_of,
    job_name,
    job_script,
    read_options,
    sbatch_arguments,
)
from kallichore.errors import EngineError

TOKEN = bytes(range(8))

ALWAYS = (
    *("--job-name=name", "--parsable", "--nodes=1", "--ntasks=1", "--no-requeue"),
    *("--export=HOME,USER,LOGNAME,SHELL,LANG,PATH=/usr/local/bin:/usr/bin:/bin", "--propagate=NONE"),
    *("--chdir=/", "--input=/dev/null", "--output=/dev/null"),
)


def test_nothing_asked_leaves_all_to_slurm() -> None:
    """Without options a job has the cluster's defaults: one task on one node, which takes nothing from the server."""
    assert list(ALWAYS) == sbatch_arguments(read_options({}), "name")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"partition": "gpu,main"}, "--partition=gpu,main"),
        ({"account": "lab"}, "--account=lab"),
        ({"qos": "high"}, "--qos=high"),
        ({"time": "2-00:00:00"}, "--time=2-00:00:00"),
        ({"memory": "4G"}, "--mem=4G"),
        ({"cpus": 8}, "--cpus-per-task=8"),
        ({"gpus": 1}, "--gpus-per-node=1"),
        ({"gres": "gpu:a100:2"}, "--gres=gpu:a100:2"),
        ({"constraint": "avx512&ib"}, "--constraint=avx512&ib"),
        ({"reservation": "course"}, "--reservation=course"),
        ({"nodelist": "node[1-4]"}, "--nodelist=node[1-4]"),
        ({"extra": ["--comment=two words"]}, "--comment=two words"),
    ],
)
def test_option_is_one_of_sbatch(options: dict[str, Any], argument: str) -> None:
    """Each option is one of sbatch's, as one argument whatever is in it."""
    assert [*ALWAYS, argument] == sbatch_arguments(read_options(options), "name")


def test_output_is_written_where_it_is_wanted() -> None:
    """What a job prints goes nowhere, or into the file that is asked for."""
    arguments = sbatch_arguments(read_options({"output": "/scratch/%u-%j.log"}), "name")

    assert "--output=/scratch/%u-%j.log" in arguments
    assert "--output=/dev/null" not in arguments


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partitoin": "main"}, "engine.partitoin is not known; known are partition, account"),
        ({"cpus": "4"}, 'cpus: must be an integer of 32 bits, not "4"'),
        ({"cpus": 0}, "cpus must be 1 or more, not 0"),
        ({"gpus": -1}, "gpus must be 1 or more, not -1"),
        ({"memory": 4096}, "memory: must be a string, not 4096"),
        ({"memory": "4 GB"}, "memory must be a number with K, M, G or T"),
        ({"time": "1h"}, "time must be as Slurm has it"),
        ({"time": "1:2:3:4"}, "time must be as Slurm has it"),
        ({"partition": ""}, "partition must be a word, not ''"),
        ({"account": "a\nb"}, "account must be a word"),
        ({"extra": "--hold"}, 'extra: must be an array, not "--hold"'),
        ({"extra": ["-p", "main"]}, "extra must be options in full, as --name=value, not '-p'"),
        ({"extra": ["script.sh"]}, "extra must be options in full"),
        ({"extra": ["--"]}, "extra must be options in full"),
        ({"extra": ["--comment=a\0b"]}, "extra must be options in full"),
        ({"extra": ["--job-name=mine"]}, "--job-name is set here: jobs are found again by their names"),
        ({"extra": ["--job=mine"]}, "--job-name is set here"),
        ({"extra": ["--array=1-10"]}, "--array is set here: one session is one job"),
        ({"extra": ["--export=ALL"]}, "--export is set here"),
        ({"extra": ["--requeue"]}, "--requeue is set here"),
        ({"extra": ["--mem=4G"]}, "use the option memory"),
        ({"extra": ["--part=main"]}, "use the option partition"),
        ({"extra": ["--output=/x"]}, "use the option output"),
        ({"output": "host.log"}, "output must be an absolute path"),
        ({"python": "python3 -u"}, "python must be one program"),
        ({"python": "-c"}, "python must be one program"),
        ({"python": "a'b"}, "python must be one program"),
        ({"server": "a b\n"}, "server must be a word"),
        ({"setup": ["a\nb"]}, "setup must be lines"),
        ({"cpus": 0, "nice": 1}, "engine.nice is not known"),
    ],
)
def test_what_cannot_be_understood_is_named(options: dict[str, Any], words: str) -> None:
    """An option that is unknown or cannot be is refused, and the text names it and what it may be."""
    with pytest.raises(EngineError) as caught:
        read_options(options)

    assert words in caught.value.message


@pytest.mark.parametrize(
    "extra",
    ["--hold", "--mem-per-gpu=4G", "--time-min=10", "--begin=now+1hour", "--dependency=singleton", "--nice=100"],
)
def test_other_options_of_sbatch_are_handed_on(extra: str) -> None:
    """What sets nothing that is relied on here may be asked for, also where its name begins like one that may not."""
    assert extra in sbatch_arguments(read_options({"extra": [extra]}), "name")


@pytest.mark.parametrize("time", ["30", "30:00", "8:00:00", "2-0", "2-12", "2-12:30", "2-12:30:00"])
def test_time_limit_is_what_slurm_understands(time: str) -> None:
    """All of Slurm's ways to write a time limit are understood."""
    assert time == read_options({"time": time}).time


@given(st.text(st.sampled_from("abcXYZ019-_"), max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_name_tells_whose_job_it_is(label: str, owner: str, other: str) -> None:
    """A job is known by its name as one of its own server, and of no other; people see the label first."""
    name = job_name(label, owner, TOKEN)

    assert is_job_of(name, owner)
    assert is_job_of(name, other) == (owner == other)
    assert name.startswith(label[:40])
    assert len(name) <= 80


@pytest.mark.parametrize("name", ["", "x", "a.kc-0123456789", "a.kc-0123456789-0011223344556677x", "wrap"])
def test_job_of_somebody_else_is_nobodys(name: str) -> None:
    """What is not named as our jobs are is never taken for one."""
    assert not is_job_of(name, "owner")


@pytest.mark.posix_only("bash")
def test_setup_comes_before_the_host(tmp_path: Any) -> None:
    """Lines of setup run in a login bash, and the host that follows has what they set, and is that process."""
    script = tmp_path / "script"
    host = b"import os\nprint('$HOME', os.environ['LOADED'], os.getpid())\n"
    options = SlurmOptions(setup=("export LOADED='yes $$'",), python=sys.executable)
    script.write_bytes(job_script(options, host))
    script.chmod(0o700)
    process = subprocess.Popen(
        ["/bin/bash", str(script)], stdout=subprocess.PIPE, env={**os.environ, "HOME": str(tmp_path)}
    )
    said, _ = process.communicate()

    assert script.read_bytes().startswith(b"#!/bin/bash -l\n")
    assert said.decode().split() == ["$HOME", "yes", "$$", str(process.pid)]
