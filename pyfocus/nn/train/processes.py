"""Several processes at one run: torchrun starts them, each takes its share of every step's draws, gradients are meant.

torchrun --nproc-per-node 2 --no-python pyfocus train stream_base -o RUN --set draws=2
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from ...errors import ArgumentError, ResourceError
from .recipes import Recipe
from .sources import Share


def device_of(wanted: str) -> str:
    """The device of this process: "cpu", "cuda" or "cuda:N". Raises ArgumentError or ResourceError."""
    place = wanted
    if wanted == "auto":
        place = "cuda" if torch.cuda.is_available() else "cpu"
    if place == "cuda":
        place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if place != "cpu" and not place.startswith("cuda:"):
        raise ArgumentError(f"train: device must be auto, cpu, cuda or cuda:N, got {wanted!r}")
    if place != "cpu":
        number = place.partition(":")[2]
        if not number.isdigit() or int(number) >= torch.cuda.device_count():
            raise ResourceError(f"train: {place} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
        torch.cuda.set_device(place)
    return place


def half_precision(device: str) -> str:
    """What "auto" arithmetic is on a device: "bf16" where it is fast, "none" elsewhere."""
    if device != "cpu":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        flags = []
    return "bf16" if "amx_bf16" in flags or "avx512_bf16" in flags else "none"


@contextmanager
def processes(device: str) -> Iterator[Share]:
    """This process's share; joins the others when torchrun has started several."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Share()
        return
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield Share(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def check_share(recipe: Recipe, share: Share) -> None:
    """That the step's draws can be shared out evenly. Raises ArgumentError."""
    if recipe.draws % share.world:
        raise ArgumentError(
            f"train: draws must be a multiple of the {share.world} processes, got {recipe.draws}; "
            f"set draws={share.world} (batch {recipe.batch} is shared by them)"
        )


def joined(net: nn.Module, share: Share) -> nn.Module:
    """The network as a step uses it: one whose gradients are the mean over all processes."""
    if share.world == 1:
        return net
    return nn.parallel.DistributedDataParallel(net, broadcast_buffers=False)


def mean_over(values: list[float], share: Share, device: str) -> list[float]:
    """Each value's mean over the processes, so that all decide alike."""
    if share.world == 1:
        return values
    together = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(together)
    return (together / share.world).tolist()  # type: ignore[no-any-return]
