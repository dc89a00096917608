"""The networks to measure, the arithmetic each must do, and how long that takes beside a plain convolution.

Arithmetic: multiplications and additions of convolutions and of deformable ones, counted by torch while the network
runs; what is done element by element is not counted, as it costs bytes and not arithmetic. The plain convolution has
3 x 3 taps, the network's own number of features on both sides and as many pixels as the network's finest features: the
speed at which a machine does such work when nothing else is in the way.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pyfocus.nn import FocusDeep, UNet
from pyfocus.nn.stream import FocusDeepStream

Row = dict[str, Any]
Call = Callable[[], object]
AT_ONCE = 6  # frames that FocusDeep takes through its frame-by-frame part together
SAMPLING = 8  # operations per value that a deformable convolution interpolates and masks


class Ready(NamedTuple):
    """A network at work: the call, frames it sees, megapixels of its picture, features (N, C, H, W) of the finest
    level that are in work together, and parameters."""

    call: Call
    frames: int
    megapixels: float
    features: tuple[int, int, int, int]
    parameters: int


class Case(NamedTuple):
    """A name and what makes the network ready: of a picture's side, a number of frames and a device."""

    name: str
    make: Callable[[int, int, torch.device], Ready]
    fixed: bool  # takes all frames at once; others fold them


def focusdeep(kind: Any, side: int, frames: int, device: torch.device) -> Ready:
    """The published network, at a picture of ``side`` x ``side``."""
    net = FocusDeep(kind, frames, frames_at_once=min(AT_ONCE, frames)).to(device).eval()
    side //= net.scale
    burst = torch.rand(1, frames, net.channels, side, side, device=device)
    return _ready(lambda: net(burst), net, frames, (side * net.scale) ** 2, (min(AT_ONCE, frames), 64, side, side))


def unet(side: int, frames: int, device: torch.device) -> Ready:
    """The paper's baseline."""
    net = UNet("rgb", frames).to(device).eval()
    burst = torch.rand(1, frames, 3, side, side, device=device)
    return _ready(lambda: net(burst), net, frames, side * side, (1, 64, side, side))


def step(size: Any, side: int, frames: int, device: torch.device) -> Ready:
    """One frame of the folding network."""
    net, facts = _stream(size, device)
    frame, index = torch.rand(1, 3, side, side, device=device), torch.ones(1, device=device)
    state = net.step(net.init_state(1, side, side), frame, index - 1, *facts)
    return _ready(lambda: net.step(state, frame, index, *facts), net, 1, side * side, _finest(net, side))


def finish(size: Any, side: int, frames: int, device: torch.device) -> Ready:
    """Its end, once per picture."""
    net, facts = _stream(size, device)
    frame, index = torch.rand(1, 3, side, side, device=device), torch.zeros(1, device=device)
    state = net.step(net.init_state(1, side, side), frame, index, *facts)
    return _ready(lambda: net.finish(state, *facts), net, 1, side * side, _finest(net, side))


def _case(name: str, make: Callable[..., Ready], *words: object, fixed: bool) -> Case:
    return Case(name, lambda side, frames, device: make(*words, side, frames, device), fixed)


CASES = (
    *(_case(f"FocusDeep {kind}", focusdeep, kind, fixed=True) for kind in ("rgb", "rggb", "mosaic")),
    _case("UNet rgb", unet, fixed=True),
    *(_case(f"FocusDeepStream {size}, a frame", step, size, fixed=False) for size in ("lite", "base")),
    *(_case(f"FocusDeepStream {size}, the end", finish, size, fixed=False) for size in ("lite", "base")),
)


def _stream(size: Any, device: torch.device) -> tuple[FocusDeepStream, tuple[Tensor, Tensor]]:
    net = FocusDeepStream(size).to(device).eval()
    return net, (torch.tensor([[1e-3, 1e-6]], device=device), torch.tensor([[2.0, 1.0, 1.6]], device=device))


def _finest(net: FocusDeepStream, side: int) -> tuple[int, int, int, int]:
    return 1, net.values.in_channels, side // 2, side // 2


def _ready(call: Call, net: torch.nn.Module, frames: int, pixels: int, features: tuple[int, int, int, int]) -> Ready:
    return Ready(call, frames, pixels / 1e6, features, sum(p.numel() for p in net.parameters()))


# --- arithmetic --------------------------------------------------------


def deform_conv_flops(
    input: Any, weight: Any, offset: Any, mask: Any, bias: Any, *steps: Any, out_shape: Any = None, **more: Any
) -> int:
    """Of ``pyfocus::deform_conv2d``: every tap of every input channel interpolated, then the product with weights."""
    batch, outputs, height, width = out_shape
    taps = weight[2] * weight[3]
    sampled = batch * input[1] * taps * height * width
    return int(sampled * SAMPLING + 2 * batch * outputs * weight[1] * taps * height * width)


def counted(call: Call) -> int:
    """Multiplications and additions of one call."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.pyfocus.deform_conv2d: deform_conv_flops})
    with counter:
        call()
    return int(counter.get_total_flops())


# --- time and memory ---------------------------------------------------


def measure(case: Case, side: int, frames: int, runs: int, place: str = "cpu", dtype: str = "float32") -> Row:
    """A row: milliseconds, arithmetic, memory at its peak beyond what lay there before, and the convolution's turn.

    The first call counts arithmetic, the second memory; then network and convolution take turns against the clock.
    """
    device = torch.device(place)
    with torch.no_grad(), _cast(device, dtype):
        ready = case.make(side, frames, device)
        convolution = torch.nn.Conv2d(ready.features[1], ready.features[1], 3, padding=1, bias=False).to(device)
        x = torch.rand(ready.features, device=device)
        flops, plain_flops = counted(ready.call), counted(lambda: convolution(x))
        before = _begin(device)
        ready.call()
        peak = _peak(device) - before
        times: dict[str, list[float]] = {"network": [], "plain": []}
        for _ in range(runs):
            times["network"].append(_seconds(ready.call, device))
            times["plain"].append(_seconds(lambda: convolution(x), device))
    return _row(case, ready, dtype, times, (flops, plain_flops), max(0, peak))


def _row(case: Case, ready: Ready, dtype: str, times: dict[str, list[float]], flops: tuple[int, int], peak: int) -> Row:
    median = {who: statistics.median(each) for who, each in times.items()}
    work = ready.megapixels * ready.frames
    rate, plain = flops[0] / median["network"], flops[1] / median["plain"]
    return {
        "name": case.name,
        "type": dtype,
        "parameters": ready.parameters,
        "frames": ready.frames,
        "megapixels": round(ready.megapixels, 4),
        "ms": round(median["network"] * 1e3, 3),
        "low_ms": round(min(times["network"]) * 1e3, 3),
        "high_ms": round(max(times["network"]) * 1e3, 3),
        "ms_per_megapixel_frame": round(median["network"] * 1e3 / work, 3),
        "gflop_per_megapixel_frame": round(flops[0] / 1e9 / work, 2),
        "gflop_s": round(rate / 1e9, 2),
        "plain_gflop_s": round(plain / 1e9, 2),
        "of_plain": round(rate / plain, 3),
        "peak_bytes": peak,
        "peak_mb_per_megapixel": round(peak / 1e6 / ready.megapixels, 1),
        "peak_mb_per_megapixel_frame": round(peak / 1e6 / work, 1),
    }


def _cast(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    return nullcontext() if dtype == "float32" else torch.autocast(device.type, getattr(torch, dtype))


def _seconds(call: Call, device: torch.device) -> float:
    """Of one call, to the end of the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _begin(device: torch.device) -> int:
    """Bytes in use before the network's work; on the host, of this process."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls have freed must not serve this one unseen
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest resident set so far
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak(device: torch.device) -> int:
    """The most bytes in use since then."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
