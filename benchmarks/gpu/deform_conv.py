"""Deformable convolution, forward and backward, float32 and float16, beside torchvision's where that is installed.

30 frames of 64 channels, 256 x 256, 8 offset groups, 3 x 3: the alignment of FocusDeep's features. A card with
less than 16 GB free gets 6 frames. torchvision wants the offsets in the data's type; ours are float32 always.
"""

from __future__ import annotations

import argparse
import statistics
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from clock import COPY_BYTES, Case, Clock, Row, main, missing, row, there

from pyfocus import _C

# Of torchvision's time: forward twice as fast in float32 and four times in float16, backward one and a half times.
GOALS = {"forward, float32": 1 / 2, "forward, float16": 1 / 4, "backward": 1 / 1.5}
_STEPS: dict[str, Any] = {"pad": (1, 1)}


class Shape(NamedTuple):
    """Frames, channels (in and out), offset groups, height and width."""

    frames: int
    channels: int
    groups: int
    height: int
    width: int


FULL, FEW, QUICK = Shape(30, 64, 8, 256, 256), Shape(6, 64, 8, 256, 256), Shape(2, 8, 2, 10, 12)


def work(options: argparse.Namespace, found: Row) -> None:
    """Both directions in both types; torchvision's turn after ours."""
    why = missing("deform_conv", "deform_conv_backward")
    if why:
        found["skipped"].append({"what": "deform_conv", "why": why})
        return
    clock = Clock(1 if options.quick else 7)
    copy = found["copy_gb_s"] = round(clock.copy_gb_s(1_000_000 if options.quick else COPY_BYTES), 1)
    shape = QUICK if options.quick else FULL if _C.device_facts()["memory_free"] > 16e9 else FEW
    rivals = _torchvision(shape, clock.runs, found)
    for dtype in ("float32", "float16"):
        try:
            for case in _cases(shape, dtype):
                measured = row(case.name, clock.milliseconds(case.call), case.bytes, copy)
                rival = rivals.get(case.name)
                if rival is not None:
                    share = measured["ms"] / rival
                    measured |= {"torchvision_ms": round(rival, 3), "of_torchvision": round(share, 3)}
                    goal = next(share for words, share in GOALS.items() if words in case.name)
                    measured |= {"goal": f"{100 * goal:.0f} % of torchvision's time", "met": share <= goal}
                found["operations"].append(measured)
        except Exception:
            found["errors"].append(f"deform_conv {dtype}: {traceback.format_exc()}")


def deform_convs(_: tuple[int, int]) -> Iterator[Case]:
    """Both directions in every type, tiny."""
    for dtype in ("float32", "float16"):
        yield from _cases(QUICK, dtype)


def _cases(shape: Shape, dtype: str) -> Iterator[Case]:
    n, c, g, h, w = shape
    random = np.random.default_rng(2)
    how = _STEPS | {"offset_groups": g}
    data = there(random.standard_normal((n, c, h, w), np.float32).astype(dtype))
    weight = there((0.05 * random.standard_normal((c, c, 3, 3), np.float32)).astype(dtype))
    bias = there(np.zeros(c, dtype))
    offset = there(2 * random.standard_normal((n, 18 * g, h, w), np.float32))
    mask = there(random.random((n, 9 * g, h, w), np.float32))
    out = _C.DeviceArray(data.shape, dtype)
    most = max(_C.deform_conv_workspace(data, weight, backward=back, **how) for back in (False, True))
    space = _C.DeviceArray((max(1, most),), "uint8")
    small = weight.nbytes + bias.nbytes
    yield Case(
        f"deform_conv forward, {dtype}",
        lambda s: _C.deform_conv(data, weight, offset, mask, bias, out, space, stream=s, **how),
        data.nbytes + offset.nbytes + mask.nbytes + out.nbytes + small,
    )
    gradients = [_C.DeviceArray(a.shape, a.dtype) for a in (data, offset, mask, weight, bias)]
    yield Case(
        f"deform_conv backward, {dtype}",
        lambda s: _C.deform_conv_backward(data, data, weight, offset, mask, *gradients, space, stream=s, **how),
        3 * data.nbytes + 2 * (offset.nbytes + mask.nbytes + small),
    )


def _torchvision(shape: Shape, runs: int, found: Row) -> dict[str, float]:
    """Median milliseconds of torchvision's, by the names of our cases; empty where there is none."""
    try:
        import torch
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError) as error:
        found["skipped"].append({"what": "torchvision beside deform_conv", "why": f"it does not import: {error}"})
        return {}
    if not torch.cuda.is_available():
        found["skipped"].append({"what": "torchvision beside deform_conv", "why": "torch sees no CUDA device"})
        return {}
    n, c, g, h, w = shape
    times: dict[str, float] = {}
    for dtype in ("float32", "float16"):
        kind = getattr(torch, dtype)
        how: dict[str, Any] = {"device": "cuda", "dtype": kind, "requires_grad": True}
        data, weight = torch.randn(n, c, h, w, **how), torch.randn(c, c, 3, 3, **how)
        offset, mask = torch.randn(n, 18 * g, h, w, **how), torch.rand(n, 9 * g, h, w, **how)

        def forward(data: Any = data, weight: Any = weight, offset: Any = offset, mask: Any = mask) -> Any:
            return deform_conv2d(data, offset, weight, None, padding=1, mask=mask)

        try:
            with torch.no_grad():
                times[f"deform_conv forward, {dtype}"] = _torch_milliseconds(torch, forward, runs)
            result = forward()
            inputs, upstream = (data, offset, mask, weight), torch.ones_like(result)
            times[f"deform_conv backward, {dtype}"] = _torch_milliseconds(
                torch,
                lambda r=result, i=inputs, u=upstream: torch.autograd.grad(r, i, u, retain_graph=True),  # type: ignore[misc]
                runs,
            )
        except RuntimeError as error:
            found["skipped"].append({"what": f"torchvision beside deform_conv, {dtype}", "why": str(error)[:300]})
    torch.cuda.empty_cache()
    return times


def _torch_milliseconds(torch: Any, call: Callable[[], Any], runs: int) -> float:
    times = []
    for _ in range(runs + 1):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[1:])


if __name__ == "__main__":
    main(work, __doc__)
