"""Each native operation on 12 MP: time, bytes that it cannot avoid moving, and OpenCV beside it where it has the same.

Planes are three of float32, as in a colour stack, unless a row says otherwise. All inputs and outputs exist before the
clock starts and are larger than the caches, so that GB/s can be held against the copy that the same run measures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from machine import RESULTS, cores, record, save, table

from pyfocus import _C
from pyfocus.colour import decode_lut

Planes = npt.NDArray[np.float32]
Call = Callable[[int], object]  # takes the number of threads
_COPY_BYTES = 200_000_000
_KERNELS = (("bilinear", "LINEAR"), ("bicubic", "CUBIC"), ("lanczos3", "LANCZOS4"))
_LUMA = [0.25, 0.65, 0.10]


class Case(NamedTuple):
    """One operation: its call, the bytes it must read and write, and OpenCV's call with its name."""

    name: str
    call: Call
    bytes: int
    rival: Call | None = None
    rival_name: str = ""


def main(arguments: list[str] | None = None) -> None:
    """Time every operation, print the table, write results/kernels.json and .md."""
    options = _options(arguments)
    size = (options.height, options.width)
    results = record("kernels", {"size": list(size), "runs": options.runs, "copy_bytes": _COPY_BYTES})
    counts = sorted({1, cores()})
    results["copy_gb_s"] = {str(n): round(_copy_rate(n, options.runs), 2) for n in counts}
    results["operations"] = []
    random = np.random.default_rng(1)
    for group in (_warps, _readings, _pyramid, _sums):
        for case in group(random, size):
            for threads in counts:
                results["operations"].append(_measure(case, threads, options.runs, results["copy_gb_s"]))
            print(case.name, flush=True)
    save("kernels", results, _text(results), options.results)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--width", type=int, default=4000)
    add("--height", type=int, default=3000)
    add("--runs", type=int, default=7, help="runs that count, after one that does not")
    add("--results", type=Path, default=RESULTS, help="folder for kernels.json and kernels.md")
    return parser.parse_args(arguments)


def _measure(case: Case, threads: int, runs: int, copy: dict[str, float]) -> dict[str, Any]:
    """Medians of ours and OpenCV's, taking turns."""
    cv2.setNumThreads(threads)
    times: dict[str, list[float]] = {"ours": [], "rival": []}
    for turn in range(runs + 1):
        for who, call in (("ours", case.call), ("rival", case.rival)):
            if call is not None:
                seconds = _seconds(call, threads)
                if turn:
                    times[who].append(seconds)
    median = statistics.median(times["ours"])
    rate = case.bytes / median / 1e9
    row: dict[str, Any] = {
        "name": case.name,
        "threads": threads,
        "ms": round(median * 1e3, 2),
        "low_ms": round(min(times["ours"]) * 1e3, 2),
        "high_ms": round(max(times["ours"]) * 1e3, 2),
        "bytes": case.bytes,
        "gb_s": round(rate, 2),
        "of_copy": round(rate / copy[str(threads)], 3),
    }
    if times["rival"]:
        rival = statistics.median(times["rival"])
        row |= {"opencv": case.rival_name, "opencv_ms": round(rival * 1e3, 2), "ratio": round(median / rival, 3)}
    return row


def _seconds(call: Call, threads: int) -> float:
    started = time.perf_counter()
    call(threads)
    return time.perf_counter() - started


def _copy_rate(threads: int, runs: int) -> float:
    """GB read and written per second by a plain copy, cut into one piece per thread."""
    source = np.ones(_COPY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    pieces = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        times = [_seconds(lambda _: list(pool.map(lambda p: np.copyto(*p), pieces)), threads) for _ in range(runs + 1)]
    return 2 * source.nbytes / statistics.median(times[1:]) / 1e9


def _native(function: Callable[..., object], *arguments: object, **options: object) -> Call:
    """A call of a kernel that waits for the number of threads."""
    return lambda threads: function(*arguments, **options, threads=threads)


def _affine(size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A little breathing, rotation and shift, as between the frames of a bracket."""
    matrix = np.eye(3)
    matrix[:2] = cv2.getRotationMatrix2D((size[1] / 2, size[0] / 2), 0.2, 1.004)
    matrix[:2, 2] += (2.3, -1.7)
    return matrix


def _warps(random: np.random.Generator, size: tuple[int, int]) -> Iterator[Case]:
    """The three kernels on planes, then on a 16-bit sRGB picture as a stack reads it: decoded, rooted, squared."""
    source = random.random((3, *size), np.float32)
    picture = np.ascontiguousarray(source.transpose(1, 2, 0))
    out, other, valid = np.empty_like(source), np.empty_like(picture), np.empty(size, np.uint8)
    matrix = _affine(size)
    maps = np.stack([matrix] * 3)

    def opencv(name: str) -> Call:
        flags = getattr(cv2, f"INTER_{name}") | cv2.WARP_INVERSE_MAP
        whole = size[::-1]
        return lambda _: cv2.warpAffine(picture, matrix[:2], whole, other, flags, cv2.BORDER_REPLICATE)

    moved = source.nbytes + out.nbytes + valid.nbytes
    for kernel, (name, theirs) in enumerate(_KERNELS):
        ours = _native(_C.warp, source, maps, out, valid, interpolation=kernel)
        yield Case(f"warp {name}", ours, moved, opencv(theirs), f"warpAffine {theirs}")
    coded = (picture * 65535).astype(np.uint16)
    planes, how = coded.transpose(2, 0, 1), {"table": decode_lut(coded.dtype), "scale": [1.0] * 3}
    moved = coded.nbytes + out.nbytes + valid.nbytes
    for kernel, (name, _) in enumerate(_KERNELS):
        ours = _native(_C.warp, planes, maps, out, valid, interpolation=kernel, root=True, square=True, **how)
        yield Case(f"warp {name}, from 16-bit sRGB", ours, moved)


def _readings(random: np.random.Generator, size: tuple[int, int]) -> Iterator[Case]:
    """What turns counts into light and back: demosaic, luminance, unpack."""
    height, width = size
    planes = random.random((3, *size), np.float32)
    coded = random.integers(0, 65536, (*size, 3), np.uint16)
    channels, how = coded.transpose(2, 0, 1), {"table": decode_lut(coded.dtype), "scale": [1.0] * 3}
    for factor in (1, 4):
        small = np.empty((height // factor, width // factor), np.float32)
        call = _native(_C.luminance, channels, _LUMA, small, factor=factor, square_root=True, **how)
        yield Case(f"luminance / {factor}, from 16-bit sRGB", call, coded.nbytes + small.nbytes)
    call = _native(_C.unpack, planes, channels, [65535.0] * 3, [0.0] * 3, srgb=True)
    yield Case("unpack to 16-bit sRGB", call, planes.nbytes + coded.nbytes)
    mosaic = random.integers(512, 16384, size, np.uint16)
    call = _native(_C.demosaic, mosaic, [0, 0], [1 / 15871] * 4, [-512 / 15871] * 4, planes)
    yield Case("demosaic, 16-bit Bayer", call, mosaic.nbytes + planes.nbytes)


def _pyramid(random: np.random.Generator, size: tuple[int, int]) -> Iterator[Case]:
    """The finest level of the default fuser, which is three quarters of its work."""
    low = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    fine, coarse = random.random((3, *size), np.float32), random.random((3, *low), np.float32)
    out, small = np.empty_like(fine), np.empty_like(coarse)
    picture, quarter = (np.ascontiguousarray(a.transpose(1, 2, 0)) for a in (fine, coarse))
    down, up = np.empty_like(quarter), np.empty_like(picture)
    both = fine.nbytes + coarse.nbytes

    def pyr_down(_: int) -> object:
        return cv2.pyrDown(picture, down, low[::-1])

    def pyr_up(_: int) -> object:
        return cv2.pyrUp(quarter, up, size[::-1])

    yield Case("pyramid down", _native(_C.pyramid_down, fine, small), both, pyr_down, "pyrDown")
    yield Case("pyramid up", _native(_C.pyramid_up, coarse, out), both, pyr_up, "pyrUp")
    rating, peak = random.random(low, np.float32), random.random(low, np.float32)
    before, energy = rating.copy(), np.empty(low, np.float32)
    valid, seen = np.ones(size, np.uint8), np.empty(low, np.uint8)
    one = rating.nbytes
    yield Case("pyramid energy", _native(_C.pyramid_energy, fine, coarse, energy), both + one)
    yield Case("pyramid smooth, 1 plane at half size", _native(_C.pyramid_smooth, rating, energy), 2 * one)
    yield Case("pyramid valid", _native(_C.pyramid_valid, valid, seen), valid.nbytes + seen.nbytes)
    call = _native(_C.pyramid_measure, fine, coarse, energy)
    yield Case("pyramid measure: down and energy", call, both + one)
    call = _native(_C.pyramid_rate, energy, coarse, seen, 1e-4, 1e-6, before, rating, peak)
    yield Case("pyramid rate", call, coarse.nbytes + seen.nbytes + 5 * one)
    numerator, denominator = np.ones_like(fine), np.ones(size, np.float32)
    sums = numerator.nbytes + denominator.nbytes
    call = _native(_C.pyramid_fold, fine, coarse, rating, before, peak, 4, numerator, denominator)
    yield Case("pyramid fold", call, both + 3 * one + 2 * sums)
    call = _native(_C.pyramid_collapse, numerator, denominator, coarse, out)
    yield Case("pyramid collapse", call, sums + coarse.nbytes + out.nbytes)


def _sums(random: np.random.Generator, size: tuple[int, int]) -> Iterator[Case]:
    """One registration step on one plane of full size (a stack registers smaller ones)."""
    fixed = cv2.GaussianBlur(random.random(size, np.float32), (0, 0), 2)
    moving = cv2.GaussianBlur(random.random(size, np.float32), (0, 0), 2)
    for parameters, motion in ((6, "affine"), (8, "homography")):
        count = _C.ecc_sum_count(parameters)
        space, sums = np.empty((-(-size[0] // _C.ECC_CHUNK_ROWS), count)), np.empty(count)
        call = _native(_C.ecc, fixed, moving, _affine(size), parameters, space, sums)
        yield Case(f"ecc sums, {motion}, 1 plane", call, fixed.nbytes + moving.nbytes)


def _text(results: dict[str, Any]) -> str:
    copy = ", ".join(f"{rate:.1f} GB/s with {n}" for n, rate in results["copy_gb_s"].items())
    megapixels = results["settings"]["size"][0] * results["settings"]["size"][1] / 1e6
    rows = []
    for row in results["operations"]:
        rival = (row["opencv"], f"{row['opencv_ms']:.1f}", f"{row['ratio']:.2f}") if "opencv" in row else (None,) * 3
        rows.append([
            row["name"], row["threads"], f"{row['ms']:.1f}", f"{row['low_ms']:.1f} to {row['high_ms']:.1f}",
            f"{row['bytes'] / 1e6:.0f}", f"{row['gb_s']:.1f}", f"{100 * row['of_copy']:.0f} %", *rival,
        ])  # fmt: skip
    head = ("operation", "threads", "ms", "range", "MB", "GB/s", "of copy", "OpenCV", "ms", "ours / OpenCV")
    lines = [
        f"# Native operations on {megapixels:.1f} MP",
        f"Medians of {results['settings']['runs']} runs. MB: what must be read and written at least. "
        f"By number of threads, a plain copy "
        f"moves {copy}. OpenCV works on interleaved pictures, with the same number of threads.",
        table(head, rows),
    ]
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
