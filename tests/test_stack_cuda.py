"""The whole pipeline on a device, real or emulated, beside the CPU: same pictures, same transforms, same errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import pyfocus
from pyfocus import _C
from pyfocus.arrays import DeviceArrays, arrays_of
from pyfocus.burst import Frame, Meta
from pyfocus.errors import ArgumentError, BurstError, ResourceError
from pyfocus.staging import Staging

pytestmark = pytest.mark.cuda
RAW = Meta(cfa="GBRG", black=(512.0,) * 4, white=16000.0, white_balance=(1.9, 1.0, 1.5))


def mosaics(frames: np.ndarray, size: tuple[int, int]) -> list[Frame]:
    """The frames as a GBRG sensor counts them."""
    colour = np.array([[1, 2], [0, 1]])  # of GBRG
    h, w = size
    site = np.tile(colour, (h // 2 + 1, w // 2 + 1))[:h, :w]
    found = []
    for frame in frames:
        light = np.take_along_axis(frame[:h, :w] / [1.9, 1.0, 1.5], site[..., None], axis=2)[..., 0]
        found.append(Frame(np.rint(512 + (16000 - 512) * light).astype(np.uint16), RAW))
    return found


def both(frames: Any, **how: Any) -> tuple[pyfocus.Stacked, pyfocus.Stacked]:
    how = {"fuser": "laplacian", **how}  # by default the host keeps frames, a device does not
    before = _C.device_in_use()
    there = pyfocus.stack(frames, device="cuda", **how)
    assert _C.device_in_use() == before, "device memory was left behind"
    return pyfocus.stack(frames, **how), there


def assert_alike(here: pyfocus.Stacked, there: pyfocus.Stacked) -> None:
    assert here.crop == there.crop and here.left_out == there.left_out
    # worst seen on the emulated device 2e-6; a real one contracts multiplications and additions
    np.testing.assert_allclose(there.fused.image, here.fused.image, atol=2e-5)
    for one, other in ((here.depth(), there.depth()), (here.confidence(), there.confidence())):
        assert one is not None and other is not None
        assert np.mean(np.abs(one - other) > 1e-3) < 1e-3  # a tie may fall the other way


def test_what_moved_is_left_out_on_both_sides():
    texture = np.kron(np.random.default_rng(5).random((40, 50, 3)), np.ones((4, 4, 1))) * 0.5 + 0.2
    y, x = np.mgrid[:160, :200]
    frames = []
    for k in range(8):
        frame, reach = texture, abs(k - 4) + 1
        for axis in (0, 1):
            frame = sum(np.roll(frame, s, axis) for s in range(-reach, reach + 1)) / (2 * reach + 1)
        if k == 3:
            frame = np.where(((y - 80) ** 2 + (x - 100) ** 2 < 24**2)[..., None], 0.02, frame)
        frames.append(np.rint(65535 * frame).astype(np.uint16))
    here, there = both(frames)
    assert list(here.ghosts) == list(there.ghosts) == ["frame 3"]
    assert here.ghosts["frame 3"] == pytest.approx(there.ghosts["frame 3"], rel=0.02)


def test_pictures_stack_to_the_same_on_both_sides(small_bracket):
    frames = [np.rint(np.clip(f, 0, 1) * 65535).astype(np.uint16) for f in small_bracket.frames[::2]]
    here, there = both(frames)
    assert here.registration is not None and there.registration is not None
    np.testing.assert_allclose(there.registration.transforms, here.registration.transforms, atol=2e-4)
    assert_alike(here, there)


@pytest.mark.parametrize("domain", ["rgb", "raw"])
def test_mosaics_of_odd_size_stack_to_the_same(small_bracket, domain):
    frames = mosaics(small_bracket.frames[::2], (121, 141))
    burst = pyfocus.Burst([f"f{i}" for i in range(len(frames))], lambda i: frames[i])
    here, there = both(burst, domain=domain, align=False)
    assert_alike(here, there)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_grey_and_float_pictures(small_bracket, dtype):
    grey = np.clip(small_bracket.frames[:2, :90, :110, 1], 0, 1)
    frames = [np.rint(f * 255).astype(np.uint8) if dtype == "uint8" else f for f in grey]
    assert_alike(*both(frames, align=False))


def test_frame_by_frame_with_previews(small_bracket):
    frames = np.rint(np.clip(small_bracket.frames[:3, :100, :120], 0, 1) * 65535).astype(np.uint16)
    here, there = pyfocus.Stacker(align=False), pyfocus.Stacker(align=False, device="cuda")
    for frame in frames:
        assert here.push(frame) and there.push(frame)
        # a code of 255 may round the other way
        assert np.abs(here.preview().astype(int) - there.preview().astype(int)).max() <= 1
    assert_alike(here.finish(), there.finish())


def test_a_fuser_that_knows_only_numpy_gets_numpy(small_bracket):
    frames = np.ascontiguousarray(small_bracket.frames[:2, :64, :64])
    here, there = both(list(frames), fuser="average", align=False)
    np.testing.assert_allclose(there.fused.image, here.fused.image, atol=1e-6)


def test_too_little_memory_falls_back_to_the_cpu_with_one_warning(small_bracket):
    frames = [np.rint(np.clip(f, 0, 1) * 65535).astype(np.uint16) for f in small_bracket.frames[:2, :96, :96]]
    here = pyfocus.stack(frames, fuser="laplacian")
    for memory in (1000, 400_000):  # not even a frame; a frame but no accumulators
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            there = pyfocus.stack(frames, fuser="laplacian", device="cuda", device_memory=_C.device_in_use() + memory)
        assert [w.category for w in seen] == [RuntimeWarning] and "goes on on the CPU" in str(seen[0].message)
        np.testing.assert_array_equal(there.fused.image, here.fused.image)
    assert_alike(
        here, pyfocus.stack(frames, fuser="laplacian", device="cuda", device_memory=_C.device_in_use() + 50_000_000)
    )


def test_device_memory_that_the_device_has_not(small_bracket):
    frames = [np.rint(np.clip(f, 0, 1) * 65535).astype(np.uint16) for f in small_bracket.frames[:2, :96, :96]]
    if _C.device_archs() != "host":
        pytest.skip("a real device's memory cannot be made to run out here")
    _C.device_limit(_C.device_in_use() + 300_000)
    try:
        with pytest.warns(RuntimeWarning, match="out of memory on device 0.*goes on on the CPU"):
            there = pyfocus.stack(frames, fuser="laplacian", device="cuda")
    finally:
        _C.device_limit(0)
    np.testing.assert_array_equal(there.fused.image, pyfocus.stack(frames, fuser="laplacian").fused.image)


def test_memory_does_not_grow_with_frames_or_failing_calls(small_bracket):
    frame = np.rint(np.clip(small_bracket.frames[0, :64, :64], 0, 1) * 65535).astype(np.uint16)
    stacker = pyfocus.Stacker(align=False, device="cuda")
    stacker.push(frame)
    stacker.push(frame)
    used = _C.device_in_use()
    for _ in range(3):
        stacker.push(frame)
    there = _C.DeviceArray((4, 4), "float32")
    used += there.nbytes
    for _ in range(1000):
        with pytest.raises(BurstError, match="all frames must be alike"):
            stacker.push(frame[:32])
        with pytest.raises(ArgumentError, match="on the device of the first array"):
            _C.luminance(np.zeros((1, 4, 4), np.float32), [1.0], there)
    assert _C.device_in_use() == used


def test_a_burst_of_other_sizes_is_refused(small_bracket):
    frames = [np.ascontiguousarray(small_bracket.frames[0, :64, :64]), np.zeros((64, 66, 3), np.float32)]
    burst = pyfocus.Burst(["a", "b"], lambda i: Frame(frames[i]))
    before = _C.device_in_use()
    with pytest.raises(BurstError, match="all frames must be alike"):
        pyfocus.stack(burst, device="cuda")
    assert _C.device_in_use() == before


def test_devices_by_name():
    assert arrays_of("cpu") is arrays_of("cpu") and not arrays_of("cpu").is_device
    assert arrays_of("cuda").name == arrays_of("auto").name == arrays_of("cuda:0").name == "cuda:0"
    for word in ("gpu", "cuda:", "cuda:x", "CUDA"):
        with pytest.raises(ArgumentError, match="auto, cpu, cuda or cuda:N"):
            arrays_of(word)
    with pytest.raises(ResourceError, match="no CUDA device 99"):
        arrays_of("cuda:99")


def test_staging_hands_out_no_more_slots_than_it_has():
    arrays = DeviceArrays()
    staging = Staging(arrays, slots=2)
    frame = Frame(np.zeros((4, 6, 3), np.uint8))
    _, first = staging.put(frame)
    staging.put(frame)
    with pytest.raises(ResourceError, match="all 2 frames"):
        staging.put(frame)
    staging.done(first)
    there, _ = staging.put(Frame(np.full((2, 2, 3), 9, np.uint8)))  # of another size: the free slot is made anew
    assert (staging.arrays.to_host(there.data) == 9).all()
