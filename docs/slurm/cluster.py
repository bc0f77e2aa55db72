"""``ztfzarr run`` on workers that SLURM starts, one batch job each, through dask-jobqueue.

    pip install "ztfzarr[distributed]" dask-jobqueue
    python docs/slurm/cluster.py --jobs 16 -- s3://bucket/ztf --night 2020-08-01:2020-08-31

What stands after ``--`` goes to ``ztfzarr run``. Start it where jobs may connect to, such as a login node, or in a
small job of its own; it ends with the work, and so do its jobs. Credentials of an object store come from the
environment, which sbatch hands to the jobs, or from a profile; or as ``--storage-option`` from the command line,
which travel to the workers with their tasks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import suppress

from dask_jobqueue import SLURMCluster


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4, help="batch jobs, each a worker")
    parser.add_argument("--cores", type=int, default=1, help="of a job: entries that it makes at once")
    parser.add_argument("--memory", default="6GB", help="of a job; a master of full size takes 2 GB")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--queue", help="partition of SLURM; default the site's")
    parser.add_argument("--interface", help="network of the machine that jobs connect to, such as ib0")
    parser.add_argument("--wait", type=float, default=300, help="seconds for jobs to start before work begins")
    parser.add_argument("run", nargs="+", help="store and options of ztfzarr run")
    arguments = parser.parse_args()
    with SLURMCluster(
        queue=arguments.queue,
        cores=arguments.cores,
        memory=arguments.memory,
        processes=1,
        walltime=arguments.walltime,
        interface=arguments.interface,
        job_extra_directives=["--requeue"],
    ) as cluster:
        cluster.scale(jobs=arguments.jobs)
        with cluster.get_client() as client, suppress(TimeoutError):
            client.wait_for_workers(arguments.jobs, timeout=arguments.wait)
        # Twice as many tasks are under way as there are workers now; those that come later take their share.
        command = ["ztfzarr", "run", *arguments.run, "--scheduler", cluster.scheduler_address]
        return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
