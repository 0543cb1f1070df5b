"""Other processes: what a seed decides must not depend on the one it is decided in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def printed(program: str, hash_seed: str) -> str:
    """Return what a Python program prints in a process of its own, under a hash seed."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


@contextmanager
def dask_cluster(workers: int) -> Iterator[str]:
    """Run a Dask cluster of processes on this machine; yields the address of its scheduler."""
    import distributed

    dask: Any = distributed
    cluster = dask.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    )
    with cluster:
        yield cluster.scheduler_address
