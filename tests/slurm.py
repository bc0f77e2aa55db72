"""A real SLURM of one node for the tests: slurmctld and slurmd on this machine, their files in a temporary folder.

Debian: ``apt-get install slurm-wlm``. No munge, no cgroups, no service: it lives as long as the tests.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from s3 import die_with_parent, free_ports

START_SECONDS = 60.0
CPUS = 8

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
JobRequeue=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=100000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start a SLURM; gives the environment that its commands want, and ends it and all jobs with the block."""
    programs = {
        name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("slurmctld", "slurmd")
    }
    if None in programs.values():
        pytest.skip("no SLURM here: slurm-wlm is not installed")
    host, (controller, daemon) = socket.gethostname().split(".")[0], free_ports(2)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    # More CPUs than a small machine has: what is tested is the queue, not how fast it goes.
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host, user=pwd.getpwuid(os.getuid()).pw_name, controller=controller, daemon=daemon,
            folder=folder, cpus=CPUS,
        )
    )  # fmt: skip
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    commands = [programs["slurmctld"], "-D"], [programs["slurmd"], "-D", "-N", host]
    processes = []
    try:
        for command in commands:
            with (folder / f"{Path(command[0]).name}.out").open("wb") as out:
                processes.append(
                    subprocess.Popen(command, env=environment, stdout=out, stderr=out, preexec_fn=die_with_parent)
                )
        _wait_for_node(environment, folder)
        yield environment
    finally:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(["scancel", "--state=RUNNING", "--full"], env=environment, timeout=20, check=False)
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def _wait_for_node(environment: dict[str, str], folder: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        said = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
        if said.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    logs = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in folder.glob("slurm*.*"))
    pytest.fail(f"SLURM does not start: {said.stdout} {said.stderr}\n{logs}")


def finished(environment: dict[str, str], job: str, seconds: float = 240.0) -> None:
    """Wait until a job and all of its array have left the queue."""
    give_up = time.monotonic() + seconds
    while subprocess.run(
        ["squeue", "-h", "-j", job], env=environment, capture_output=True, text=True
    ).stdout.strip():
        assert time.monotonic() < give_up, f"job {job} does not end"
        time.sleep(0.3)
