"""The pipeline in C++, `_C.Stack`, against the one in Python, which knows nothing of it: pixels, maps, depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyfocus import _C
from pyfocus.burst import Frame, Meta
from pyfocus.errors import ArgumentError, ResourceError
from pyfocus.simulate import procedural_scene, simulate
from pyfocus.stacker import Stacker
from reference import down

MOSAIC = Meta(cfa="GRBG", black=(60.0, 64.0, 66.0, 62.0), white=65535.0, white_balance=(1.9, 1.0, 1.4))


def bracket_frames(kind: str, mosaic: Meta) -> tuple[list[Frame], dict[str, Any]]:
    """Four frames that move and flicker, of one kind of pixels, and what a stack of them is asked for."""
    photo, depth = procedural_scene(150, 210)
    burst = simulate(
        photo, depth, frames=4, blur_px=5.0, breathing=0.02, jitter_px=1.5, flicker=0.05, seed=3,
        raw=kind in ("mosaic", "planes"),
    )  # fmt: skip
    data = [burst[i] for i in range(4)]
    if kind in ("mosaic", "planes"):
        frames = [Frame(np.roll(d, 1, axis=1), mosaic) for d in data]
        return frames, {"domain": "raw" if kind == "planes" else "rgb"}
    if kind == "uint8":
        data = [(d >> 8).astype(np.uint8) for d in data]
    elif kind == "float32":
        data = [(d / np.float32(65535)).astype(np.float32) for d in data]
    elif kind == "grey":
        data = [np.ascontiguousarray(d[..., 1]) for d in data]
    meta = Meta(encoding="linear" if kind == "linear" else "srgb")
    return [Frame(d, meta) for d in data], {}


def both(frames: list[Frame], fuser: str, **how: Any) -> tuple[Any, list[Any], Stacker, list[Any]]:
    ours = Stacker(fuser, **how)
    for frame in frames:
        ours.push(frame)
    native = _C.Stack(fuser, **how)
    steps = [native.push(f.data, f.meta, None, float(i)) for i, f in enumerate(frames)]
    crop = native.crop
    result = ours.finish()
    assert crop == result.crop
    y0, x0, y1, x1 = (v // (2 if result.is_mosaic else 1) for v in crop)
    maps = [None if a is None else np.asarray(a)[..., y0:y1, x0:x1] for a in native.finish()]
    return result, maps, ours, steps


@pytest.mark.parametrize("fuser", ["average", "laplacian", "wavelet"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "grey", "linear", "mosaic", "planes"])
def test_gives_what_the_python_pipeline_gives(fuser, kind):
    frames, how = bracket_frames(kind, MOSAIC)
    result, (image, depth, confidence), ours, steps = both(frames, fuser, **how)
    assert np.abs(image - result.fused.image).max() <= 1e-6
    if fuser == "average":
        assert depth is None and confidence is None
    else:
        assert np.abs(depth - result.fused.depth).max() <= 1e-5
        assert np.abs(confidence - result.fused.confidence).max() <= 2e-6
    assert [s[0] for s in steps] == [True] * len(frames)
    for mine, (_, theirs, *_) in zip(ours._used, steps, strict=True):
        assert np.abs(mine - np.reshape(theirs, (3, 3))).max() < (1e-6 if kind == "float32" else 1e-12)


def test_follows_a_large_shift_and_leaves_a_stranger_out():
    random = np.random.default_rng(5)
    scene = np.kron(random.uniform(0, 255, (60, 80)), np.ones((8, 8))).astype(np.uint8)
    frames = [Frame(scene[y : y + 320, x : x + 440]) for y, x in ((60, 80), (64, 170), (60, 80))]
    frames.insert(1, Frame(random.integers(0, 255, (320, 440), dtype=np.uint8)))
    result, (image, *_), ours, steps = both(frames, "laplacian", motion="translation")
    assert [s[0] for s in steps] == [True, False, True, True]
    assert ours.left_out == ["frame 1"]
    found = np.reshape(steps[2][1], (3, 3))
    assert np.abs(found[:2, 2] - [-90, -4]).max() < 0.05
    assert np.abs(image - result.fused.image).max() <= 1e-6


def test_a_known_map_is_taken_and_nothing_is_searched():
    frames, how = bracket_frames("uint8", MOSAIC)
    native = _C.Stack("laplacian", align=True, **how)
    shift = np.array([[1, 0, 3.0], [0, 1, -2.0], [0, 0, 1]])
    native.push(frames[0].data, frames[0].meta)
    used, found, *_ = native.push(frames[1].data, frames[1].meta, list(shift.ravel()), 1.0)
    assert used and np.array_equal(np.reshape(found, (3, 3)), shift)


@pytest.mark.parametrize("fuser", ["average", "laplacian", "wavelet"])
def test_previews_are_the_picture_made_smaller(fuser):
    frames, how = bracket_frames("uint16", MOSAIC)
    native = _C.Stack(fuser, **how)
    for i, frame in enumerate(frames):
        native.push(frame.data, frame.meta, None, float(i))
    full, small = np.asarray(native.preview()), np.asarray(native.preview(2))
    h, w = full.shape[1:]
    assert small.shape == (full.shape[0], -(-h // 4), -(-w // 4))
    if fuser == "wavelet":  # whose samples lie in the middle of blocks
        h, w = h // 4 * 4, w // 4 * 4
        wanted = full[:, :h, :w].reshape(full.shape[0], h // 4, 4, w // 4, 4).mean((2, 4))
        small = small[:, : h // 4, : w // 4]
    else:
        wanted = np.stack([down(down(plane)) for plane in full])
    assert np.abs(small - wanted).max() < {"average": 1e-6, "laplacian": 0.05, "wavelet": 0.2}[fuser]
    assert np.abs(small - wanted).mean() < 0.01
    again = np.asarray(native.preview())
    assert np.array_equal(full, again)
    image, *_ = native.finish()
    assert np.array_equal(np.asarray(image), full)


def test_refuses_frames_that_do_not_match():
    frames, how = bracket_frames("uint8", MOSAIC)
    native = _C.Stack("laplacian", **how)
    native.push(frames[0].data, frames[0].meta)
    with pytest.raises(ArgumentError, match="all frames must be alike"):
        native.push(frames[1].data[:-2], frames[1].meta, None, 1.0)
    before = np.asarray(native.preview())
    for bad, why in (
        (frames[1].data.astype(np.float64), "uint8, uint16 or float32"),
        (frames[1].data[..., :2], "1 or 3 channels"),
        (frames[1].data[0, 0], "dimensions"),
        (frames[1].data[:4, :4], "at least 16 px"),
    ):
        with pytest.raises(ArgumentError, match=why):
            native.push(bad, frames[1].meta, None, 1.0)
    for transform in ([np.nan] * 9, [np.inf] * 9):
        with pytest.raises(ArgumentError, match="finite"):
            native.push(frames[1].data, frames[1].meta, transform, 1.0)
    with pytest.raises(ArgumentError, match="place must be finite"):
        native.push(frames[1].data, frames[1].meta, None, float("nan"))
    with pytest.raises(ArgumentError, match="0 to 16"):
        native.preview(-1)
    assert np.array_equal(np.asarray(native.preview()), before)
    native.finish()
    for call in (native.finish, native.preview, lambda: native.push(frames[0].data, frames[0].meta)):
        with pytest.raises(ArgumentError, match="already taken"):
            call()


def test_refuses_what_it_does_not_know():
    with pytest.raises(ArgumentError, match="fuser is unknown"):
        _C.Stack("sharpest")
    with pytest.raises(ArgumentError, match="no frame"):
        _C.Stack("laplacian").finish()
    with pytest.raises(ArgumentError, match="white must be above black"):
        _C.Stack("laplacian").push(np.zeros((32, 32), np.uint16), Meta(cfa="RGGB", black=(9.0,) * 4, white=9.0))


@pytest.mark.parametrize("fuser", ["average", "laplacian", "wavelet"])
def test_a_ceiling_of_memory_is_kept_and_a_frame_without_room_changes_nothing(fuser):
    frames, how = bracket_frames("uint8", MOSAIC)
    free = _C.Stack(fuser, **how)
    for i, frame in enumerate(frames):
        free.push(frame.data, frame.meta, None, float(i))
    need = free.memory_peak
    wanted = np.asarray(free.finish()[0])
    refused = 0
    for share in np.linspace(0.02, 1, 25):
        tight = _C.Stack(fuser, memory=int(share * need), **how)
        try:
            for i, frame in enumerate(frames):
                tight.push(frame.data, frame.meta, None, float(i))
        except ResourceError as error:
            assert "allow more" in str(error)
            refused += 1
        assert tight.memory_peak <= share * need
    assert 15 < refused < 25
    assert np.array_equal(np.asarray(tight.finish()[0]), wanted)


def test_the_first_frame_may_come_again_when_there_was_no_room():
    frames, how = bracket_frames("uint8", MOSAIC)
    large = Frame(np.tile(frames[0].data, (3, 3, 1)))
    probe = _C.Stack("laplacian", **how)
    probe.push(frames[0].data, frames[0].meta)
    native = _C.Stack("laplacian", memory=2 * probe.memory_peak, **how)
    with pytest.raises(ResourceError):
        native.push(large.data, large.meta)
    held = native.memory_in_use
    assert native.push(frames[0].data, frames[0].meta)[0]
    assert held <= 2 * probe.memory_peak
    probe_image, native_image = probe.finish()[0], native.finish()[0]
    assert np.array_equal(np.asarray(native_image), np.asarray(probe_image))


@pytest.mark.parametrize("size", [(48, 60), (53, 64), (61, 67), (40, 127)])
def test_phase_correlation_finds_shifts_as_numpys_transform_does(size):
    random = np.random.default_rng(size[0])
    scene = random.uniform(0, 1, (size[0] + 20, size[1] + 20)).astype(np.float32)
    scene = np.ascontiguousarray(sum(np.roll(scene, (i, j), (0, 1)) for i in range(3) for j in range(3)) / 9)
    h, w = size
    a = np.ascontiguousarray(scene[8 : 8 + h, 8 : 8 + w])
    for dy, dx in ((0, 0), (3, -5), (-7, 6), (8, 8)):
        b = np.ascontiguousarray(scene[8 - dy : 8 - dy + h, 8 - dx : 8 - dx + w])
        x, y = _C.phase_shift(a, b)
        assert (x, y) == (dx, dy) == _numpy_shift(a, b)


def _numpy_shift(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The peak of the normalised cross spectrum by numpy.fft, smoothed as both are."""
    h, w = a.shape
    window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[None, 1:-1]
    first, second = (np.fft.fft2((p - p.mean(dtype=float)) * window) for p in (a, b))
    cross = second * first.conj()
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None]
    smooth = np.exp(-20 * (fy**2 + fx**2))
    peak = np.fft.ifft2(cross / (np.abs(cross) + 1e-9 * np.abs(cross).max()) * smooth).real
    y, x = np.unravel_index(np.argmax(peak), peak.shape)
    return float(x - w if x > w // 2 else x), float(y - h if y > h // 2 else y)
