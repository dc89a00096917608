"""A whole burst through the Python pipeline on the device: 30 RGGB frames of 24 MP from page-locked host memory.

Five frames that differ in shift and in where they are blurred are made once and given again and again, up and down, so
that making them does not take longer than stacking them. The pipeline reads each frame twice (to register, to fuse):
what it must move is twice the burst, at the speed at which this machine uploads. Peak memory is the device's.

Once more under a ceiling that the accumulators do not fit under: they lie in the host's memory then, and every frame
reads and writes 20 bytes of them per pixel over the bus besides. The pixels must be the same.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import numpy.typing as npt
from clock import Clock, Row, main

import pyfocus
from pyfocus import _C
from pyfocus.burst import Frame, Meta

GOAL = 0.8  # of the speed of uploading: the copies, not the work, should be what takes the time
SPILLED = 20  # bytes per pixel of the accumulators that leave the card
META = Meta(cfa="RGGB", black=(512.0,) * 4, white=16383.0, white_balance=(1.9, 1.0, 1.5))


def work(options: argparse.Namespace, found: Row) -> None:
    """Stack it a few times; the first run makes what later ones find made."""
    count, size = (3, (96, 128)) if options.quick else (30, (4000, 6000))
    frames = [_pinned(frame) for frame in _frames(size)]
    order = [abs((i + 4) % 8 - 4) for i in range(count)]
    burst = pyfocus.Burst([f"frame {i}" for i in range(count)], lambda i: Frame(frames[order[i]], META))
    uploading = Clock(5).upload_gb_s(1_000_000 if options.quick else 250_000_000)
    megapixels = count * size[0] * size[1] / 1e6
    whole: pyfocus.Stacked | None = None
    ceiling: int | None = None
    for domain, spill in (("rgb", False), ("rgb", True), ("raw", False)):
        runs, stages, most = [], {}, 0
        limit = ceiling if spill else None
        for _ in range(1 if options.quick else 2 if spill else 3):
            started, peak = time.perf_counter(), Peak()
            stacked = _stack(burst, domain, limit, peak)
            runs.append(time.perf_counter() - started)
            stages, most = stacked.seconds, max(most, peak.bytes)
        if domain == "rgb" and not spill:
            whole, ceiling = stacked, most - size[0] * size[1] * SPILLED // 4
        best = sorted(runs)[len(runs) // 2]
        moved = 2 * count * frames[0].nbytes + spill * 2 * count * SPILLED * size[0] * size[1]
        found["operations"].append({
            "name": f"burst of {count} x {size[0] * size[1] / 1e6:.1f} MP, {domain}" + spill * ", accumulators in host",
            "ms": round(best * 1e3, 1), "low_ms": round(min(runs) * 1e3, 1), "high_ms": round(max(runs) * 1e3, 1),
            "bytes": moved, "gb_s": round(moved / best / 1e9, 2), "upload_gb_s": round(uploading, 1),
            "of_upload": round(moved / best / 1e9 / uploading, 3), "mp_s": round(megapixels / best, 1),
            "stages_s": {k: round(v, 3) for k, v in stages.items()}, "left_out": len(stacked.left_out),
            "device_bytes": most,
            **({"equal": _equal(stacked, whole)} if spill else {}),
            **({} if options.quick or spill else _goal(moved / best / 1e9 / uploading)),
        })  # fmt: skip


def _stack(burst: pyfocus.Burst, domain: str, limit: int | None, peak: Peak) -> pyfocus.Stacked:
    """One run. Raises RuntimeError when the accumulators are not where they should be."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        stacked = pyfocus.stack(burst, device="cuda", device_memory=limit, domain=domain, progress=peak)  # type: ignore[arg-type]
    texts = [str(one.message) for one in said]
    if len(texts) != (limit is not None) or not all("kept in host memory" in text for text in texts):
        raise RuntimeError(f"under a ceiling of {limit} bytes the run said {texts}")
    return stacked


def _equal(one: pyfocus.Stacked, other: pyfocus.Stacked | None) -> bool:
    """True. Raises RuntimeError when the pictures differ in a bit."""
    if other is None or not np.array_equal(one.fused.image, other.fused.image):
        raise RuntimeError("with its accumulators in the host's memory the burst gave other pixels")
    return True


def _goal(share: float) -> Row:
    return {"goal": f"{100 * GOAL:.0f} % of upload", "met": share >= GOAL}


class Peak:
    """The pipeline's progress, used to look at the device's memory now and then."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.bytes = max(self.bytes, _C.device_in_use())


def _pinned(frame: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    held = np.asarray(_C.PinnedArray(frame.shape, "uint16"))
    held[...] = frame
    return held


def _frames(size: tuple[int, int]) -> list[npt.NDArray[np.uint16]]:
    """Five mosaics of a grey textured scene: the left half sharp at first, the right half at last, each a bit moved."""
    random, margin = np.random.default_rng(3), 16
    height, width = size[0] + margin, size[1] + margin
    scene = np.full((height, width), 0.1, np.float32)
    for octave, strength in ((1, 0.1), (4, 0.25), (16, 0.3)):
        coarse = random.random((height // octave + 1, width // octave + 1), np.float32)
        scene += strength * coarse.repeat(octave, 0).repeat(octave, 1)[:height, :width]
    half, frames = width // 2, []
    for k in range(5):
        seen = np.concatenate([_blur(scene[:, :half], 2 * k), _blur(scene[:, half:], 8 - 2 * k)], axis=1)
        y, x = 2 + k, 9 - k
        light = seen[y : y + size[0], x : x + size[1]]
        light = light + random.normal(0, 0.004, 4096).astype(np.float32)[random.integers(0, 4096)]
        counts = light * np.float32(14000) + np.float32(512)
        counts[::2, ::2] /= np.float32(1.9)
        counts[1::2, 1::2] /= np.float32(1.5)
        frames.append(np.clip(counts, 0, 16383).astype(np.uint16))
    return frames


def _blur(picture: npt.NDArray[np.float32], radius: int) -> npt.NDArray[np.float32]:
    """A box of 2 radius + 1 pixels, both ways, by running sums."""
    for axis in (0, 1):
        if radius:
            pad = [(0, 0), (0, 0)]
            pad[axis] = (radius + 1, radius)
            sums = np.cumsum(np.pad(picture, pad, mode="edge"), axis=axis, dtype=np.float64)
            long, size = 2 * radius + 1, picture.shape[axis]
            high, low = np.take(sums, range(long, long + size), axis), np.take(sums, range(size), axis)
            picture = ((high - low) / long).astype(np.float32)
    return picture


if __name__ == "__main__":
    main(work, __doc__)
