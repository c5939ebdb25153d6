"""Start the current command once per GPU, with torch's launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid

from das3d_cli.errors import DataError


def launched() -> bool:
    """Whether torch's launcher started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(arguments: list[str], processes: int) -> int:
    """Run `das3d ARGUMENTS` in several connected processes on this machine; returns the exit code.

    The first process that fails reports why, and the others are ended.

    Raises:
        DataError: a process was killed and could not report anything.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from das3d_cli.data.workers import cores

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the process itself reports errors
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",  # the machine's own name may not resolve
        max_restarts=0,
        monitor_interval=0.1,
    )
    if hasattr(config, "shutdown_timeout"):  # before torch 2.13 always 30 s
        config.shutdown_timeout = 600  # seconds after Ctrl-C: a validation may be running, then a checkpoint is written
    try:
        elastic_launch(config, sys.executable)("-m", "das3d_cli", *arguments)
    except SignalException as caught:
        return 128 + int(caught.sigval)
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        told = [code for code in codes.values() if code > 0]
        if told:
            return told[0]
        # Prefer another signal: the launcher itself ends the other processes by SIGTERM.
        rank, code = min(codes.items(), key=lambda item: item[1] == -signal.SIGTERM)
        raise DataError(
            f"process {rank} of the training was killed by {signal.Signals(-code).name}, perhaps because memory ran out;"
            " continue with --resume"
        ) from None
    return 0
