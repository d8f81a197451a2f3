"""Where a net is computed: on the CPU, or on the card that a command or a solver names."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from pipeline.errors import SolverError
from pipeline.training.engine.starting import cpu_name

CPU = torch.device("cpu")
NONE = "none"
_WORKSPACE = ":4096:8"
"""Of cuBLAS: with one of its own choice its sums have another order in each run."""


def device_of(asked: str, solver: int | None = None) -> torch.device:
    """asked: a card's number, "all", "none", or "": what the solver says.  solver: its device_id where it asks for one.

    A solver that asks for a card where none is trains on the CPU.  Raises SolverError for a card that is asked for by
    hand and is not there, for a number that is none, and for several: one process computes on one card.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == NONE or (not asked and (solver is None or not cards)):
        return CPU
    if not asked:
        return _card(solver or 0, f"device_id: {solver}", cards)
    option = f"--gpu {asked}"
    if asked == "all" and cards < 2:
        return _card(0, option, cards)
    if asked == "all" or "," in asked:
        raise SolverError(f"{option} asks for several cards", "one process trains on one card", "name one: --gpu 0")
    if not asked.isdecimal():
        raise SolverError(f"{option} is no card", "a card has a number, from 0 on", "name one: --gpu 0")
    return _card(int(asked), option, cards)


def _card(number: int, wanted: str, cards: int) -> torch.device:
    if not cards:
        built = f"it is built for CUDA {torch.version.cuda}" if torch.version.cuda else "it is built without CUDA"
        raise SolverError(
            f"{wanted}: torch finds no card", built,
            "look whether nvidia-smi lists the card, and whether its driver fits; without --gpu the CPU trains",
        )  # fmt: skip
    if number >= cards:
        raise SolverError(f"{wanted}: there is no such card", f"torch finds {cards}, numbered from 0",
                          f"name one below {cards}")  # fmt: skip
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _WORKSPACE)
    return torch.device("cuda", number)


def name_of(device: torch.device) -> str:
    """The kind of processor, which decides the last bits."""
    return cpu_name() if device.type == "cpu" else str(torch.cuda.get_device_name(device))


def rounds_fast(device: torch.device, info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether it has a unit for bfloat16.  info: what Linux says of the CPUs."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    try:
        return "amx_bf16" in info.read_text(errors="replace").split()
    except OSError:  # another system, which has no such file
        return False


def sent(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A batch on its way to the device, whose copy a card makes while it computes what came before."""
    if device.type != "cuda":
        return tensor.to(device, dtype)
    return tensor.pin_memory().to(device, dtype, non_blocking=True)
