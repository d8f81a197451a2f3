"""Starts torch: with so many threads, which do not spin while they wait."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from pipeline.errors import SolverError
from pipeline.process.installed import to_install
from pipeline.process.interrupts import ended_by_interrupts


def start(threads: int) -> int:
    """Returns the number of threads.  threads: 0: OMP_NUM_THREADS, else all cores.

    Raises SolverError where torch is missing.  Threads that spin at a barrier cost nine times the CPU of a step where
    cores are shared; that is decided as torch is loaded.
    """
    if importlib.util.find_spec("torch") is None:
        raise SolverError(
            "training needs torch, which is not installed",
            "4 GB with CUDA; the index of PyTorch has a build for CPUs alone, 0.2 GB",
            to_install("training"),
        )
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with ended_by_interrupts():
        import torch

    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    return int(torch.get_num_threads())


def engine_name() -> str:
    """The engine with its version, as results and attempts name it."""
    return f"torch {version('torch')}"


def cpu_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """The kind of CPU: its model, or its architecture where the system names no model; and what torch computes with.

    info: what Linux says of the CPUs.
    """
    import torch

    try:
        found = re.search(r"^model name\s*:\s*(\S.*)$", info.read_text(errors="replace"), re.MULTILINE)
    except OSError:  # another system, which has no such file
        found = None
    model = " ".join(found[1].split()) if found else platform.machine()
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"
