"""The three full-size nets by hand in torch.nn, tuned as its manual says: what the torch engine is compared with.

BatchNorm is folded (a convolution with its bias), Dropout left out; the weights are random, which costs the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.benchmarks.nets_by_hand import INCEPTION

Pass = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def relu(inputs: int, outputs: int, kernel: int, stride: int = 1, pad: int = 0, group: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=group), nn.ReLU(inplace=True))


def pool(kernel: int = 3, stride: int = 2, pad: int = 0) -> nn.Module:
    return nn.MaxPool2d(kernel, stride, pad, ceil_mode=True)


class Lrn(nn.LocalResponseNorm):
    """In float32: torch has none in half precision on CPUs, and in fp16 the squares overflow."""

    def __init__(self) -> None:
        super().__init__(5, 1e-4, 0.75, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def caffenet() -> nn.Module:
    return nn.Sequential(
        relu(3, 96, 11, 4), pool(), Lrn(), relu(96, 256, 5, 1, 2, 2), pool(), Lrn(), relu(256, 384, 3, 1, 1),
        relu(384, 384, 3, 1, 1, 2), relu(384, 256, 3, 1, 1, 2), pool(), nn.Flatten(), nn.Linear(9216, 4096),
        nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True),
    )  # fmt: skip


class Inception(nn.Module):
    def __init__(self, inputs: int, one: int, to3: int, three: int, to5: int, five: int, pooled: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([
            relu(inputs, one, 1), nn.Sequential(relu(inputs, to3, 1), relu(to3, three, 3, 1, 1)),
            nn.Sequential(relu(inputs, to5, 1), relu(to5, five, 5, 1, 2)),
            nn.Sequential(pool(3, 1, 1), relu(inputs, pooled, 1)),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def googlenet() -> nn.Module:
    parts = [relu(3, 64, 7, 2, 3), pool(), Lrn(), relu(64, 64, 1), relu(64, 192, 3, 1, 1), Lrn(), pool()]
    for module, sizes in INCEPTION.items():
        parts.append(Inception(*sizes))
        if module in ("3b", "4e"):
            parts.append(pool())
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        last = nn.Conv2d(width, 4 * width, 1)
        self.long = nn.Sequential(relu(inputs, width, 1, stride), relu(width, width, 3, 1, 1), last)
        self.short = nn.Conv2d(inputs, 4 * width, 1, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.long(x).add_(self.short(x)))


def resnet50() -> nn.Module:
    parts: list[nn.Module] = [relu(3, 64, 7, 2, 3), pool()]
    inputs = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            parts.append(Bottleneck(inputs, width, 2 if block == 0 and width > 64 else 1, block == 0))
            inputs = 4 * width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1))


NETS = {"caffenet": caffenet, "googlenet": googlenet, "resnet50": resnet50}


def by_hand(name: str, device: torch.device, dtype: torch.dtype, sample: NDArray[np.float32], recorded: bool) -> Pass:
    """Array in, array out.  recorded: its kernels as one CUDA graph."""
    net = NETS[name]().eval().to(device, dtype, memory_format=torch.channels_last)
    if device.type == "cpu":

        def on_cpu(x: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                fed = torch.from_numpy(x).to(dtype).contiguous(memory_format=torch.channels_last)
                return np.array(net(fed).float().numpy())

        return on_cpu
    sent = torch.empty(sample.shape, pin_memory=True)
    fed = torch.empty(sample.shape, device=device, dtype=dtype, memory_format=torch.channels_last)

    def send(x: NDArray[np.float32]) -> None:
        sent.numpy()[...] = x
        fed.copy_(sent.to(device, non_blocking=True))

    def eager(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            send(x)
            return np.array(net(fed).float().cpu().numpy())

    if not recorded:
        return eager
    with torch.inference_mode():
        for _ in range(3):
            eager(sample)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = net(fed).float()

    def replayed(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            send(x)
            graph.replay()
            return np.array(out.cpu().numpy())

    return replayed
