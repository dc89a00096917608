"""Every network on the card, in float32 and under autocast to float16, beside a plain convolution of the same size.

FocusDeep and UNet get 30 frames of 256 x 256, FocusDeepStream a frame of 2048 x 2048. A network that does not fit the
card's memory is listed as skipped.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from clock import Row, main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SIDE, STREAM_SIDE, FRAMES, RUNS = 256, 2048, 30, 7
QUICK = 32, 64, 3, 1
TYPES = ("float32", "float16")


def work(options: argparse.Namespace, found: Row) -> None:
    """Rows under "networks"; without torch, or a device that it sees, a line that says so."""
    found["networks"] = []
    try:
        import torch
        from network_cases import CASES, measure
    except (ImportError, RuntimeError) as error:
        found["skipped"].append({"what": "networks", "why": f"torch does not import: {error}"})
        return
    if not torch.cuda.is_available():
        found["skipped"].append({"what": "networks", "why": "torch sees no CUDA device"})
        return
    side, stream_side, frames, runs = QUICK if options.quick else (SIDE, STREAM_SIDE, FRAMES, RUNS)
    torch.backends.cudnn.benchmark = True
    found["tf32"] = bool(torch.backends.cudnn.allow_tf32)
    for case in CASES:
        for dtype in TYPES:
            try:
                size = side if case.fixed else stream_side
                found["networks"].append(measure(case, size, frames, runs, "cuda", dtype))
            except torch.cuda.OutOfMemoryError:
                found["skipped"].append({"what": f"{case.name}, {dtype}", "why": "it does not fit the card's memory"})
            except Exception:
                found["errors"].append(f"{case.name}, {dtype}: {traceback.format_exc()}")
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main(work, __doc__)
