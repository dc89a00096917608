"""register: bursts as they come, good and bad; the JSON form; accuracy on the shared brackets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_align import SIZE, canvas, look, noise_only, similar, worst

from pyfocus.affine import apply, corners
from pyfocus.align import align_pair
from pyfocus.burst import Burst, Frame
from pyfocus.ecc import Motion
from pyfocus.errors import ArgumentError, BurstError, RegistrationError
from pyfocus.io import read_burst
from pyfocus.register import Registrar, Registration, luminance_of, register


def burst_of(*frames: Frame) -> Burst:
    return Burst.from_arrays([frame.data for frame in frames])


def still(seed: int, count: int) -> list[Frame]:
    """A scene drifting by (1, 0.5) px a frame."""
    scene = canvas(seed)
    return [look(scene, similar(1, 0, i, 0.5 * i), noise=0.01, seed=i) for i in range(count)]


def black() -> Frame:
    return Frame(np.zeros(SIZE, np.float32))


def test_a_hard_bracket_is_followed() -> None:
    """16 % breathing, 1.2 degrees, defocus to 7.5 px sigma (a disc of 15 px) and 12 % less light over ten frames."""
    scene = canvas(1)
    true, frames = [], []
    for i in range(10):
        t = i / 9
        true.append(similar(1 + 0.16 * t, 1.2 * t, 3 * np.sin(i), 1.5 * i))
        frames.append(look(scene, true[-1], blur=7.5 * t, gain=1 - 0.12 * t, noise=0.005, seed=i))
    found = register(burst_of(*frames), reference="first", threads=1)
    assert found.registered.all() and found.converged.all() and found.correlation.min() > 0.9
    errors = [worst(a, b) for a, b in zip(found.transforms, true, strict=True)]
    assert max(errors) < 2.0
    assert register(burst_of(*frames), threads=1).reference in (4, 5)  # halfway through the breathing


@pytest.mark.parametrize("reference", [0, 2, "first", "middle", "last", "auto", np.int64(1)])
def test_any_reference_gives_the_same_maps(reference: Any) -> None:
    frames = still(2, 4)
    first = register(burst_of(*frames), reference=0, threads=1)
    other = register(burst_of(*frames), reference=reference, threads=1)
    np.testing.assert_array_equal(other.transforms[other.reference], np.eye(3))
    np.testing.assert_allclose(other.rebase(0).transforms, first.transforms, atol=1e-9)
    assert other.shift_px[other.reference] == 0 and other.size == SIZE


LAYOUTS: dict[str, tuple[str, str]] = {  # a, b: frames of two scenes, 0 black, n noise; and those that must be used
    "two scenes mixed": ("ababaa", "101011"),
    "minority first": ("bbaaa", "00111"),
    "blank within": ("aa0a", "1101"),
    "noise within": ("ana", "101"),
    "first frame junk": ("naaa", "0111"),
    "first frame black": ("0aa", "011"),
    "last frame junk": ("aan", "110"),
}


@pytest.mark.parametrize(("layout", "used"), LAYOUTS.values(), ids=LAYOUTS)
def test_what_does_not_belong_is_left_out(layout: str, used: str) -> None:
    scenes = {"a": still(3, 6), "b": still(4, 6)}
    frames = []
    for i, kind in enumerate(layout):
        place = layout[:i].count(kind)
        frames.append(scenes[kind][place] if kind in scenes else black() if kind == "0" else noise_only(i))
    found = register(burst_of(*frames), threads=1)
    assert "".join(str(int(v)) for v in found.registered) == used
    assert found.registered[found.reference]
    assert np.isnan(found.shift_px[~found.registered]).all()
    for frame in np.flatnonzero(found.registered):
        step = layout[:frame].count("a") - layout[: found.reference].count("a")
        assert worst(found.transforms[frame], similar(1, 0, step, 0.5 * step)) < 0.15
    index = int(np.flatnonzero(~found.registered)[0])
    with pytest.raises(RegistrationError, match="could not be registered to the others; choose another one"):
        register(burst_of(*frames), reference=index, threads=1)


@pytest.mark.parametrize("kind", ["black", "noise"])
def test_a_burst_that_shares_nothing_keeps_one_frame(kind: str) -> None:
    frames = [black() if kind == "black" else noise_only(i) for i in range(3)]
    found = register(burst_of(*frames), threads=1)
    assert found.registered.sum() == 1 and found.registered[found.reference]


def test_streaming_gives_what_register_gives() -> None:
    frames = still(5, 4)
    registrar = Registrar(threads=1)
    steps = [registrar.push(luminance_of(frame, threads=1)) for frame in [*frames[:2], black(), *frames[2:]]]
    assert [s.registered for s in steps] == [True, True, False, True, True]
    found = register(burst_of(*frames), reference="first", threads=1)
    for step, matrix in zip([s for s in steps if s.registered], found.transforms, strict=True):
        np.testing.assert_array_equal(step.transform, matrix)
    assert steps[2].correlation == 0 and not steps[2].converged


def test_errors_say_what_to_do() -> None:
    burst = burst_of(*still(6, 2))
    with pytest.raises(ArgumentError, match=r"register: motion must be one of translation, .*, got 'rigid'"):
        register(burst, motion="rigid")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"register: reference must be auto, first, middle, last .*, got 'best'"):
        register(burst, reference="best")
    for wrong in (2, -1):
        with pytest.raises(ArgumentError, match=f"register: reference must be 0 to 1, got {wrong}"):
            register(burst, reference=wrong)
    with pytest.raises(BurstError, match="register: no frames were pushed"):
        Registrar().result((2, 2))
    registrar = Registrar()
    registrar.push(luminance_of(Frame(np.zeros((40, 50), np.float32))))
    with pytest.raises(BurstError, match="register: frame 1 is 40 x 50 px, the first one is 50 x 40 px"):
        registrar.push(luminance_of(Frame(np.zeros((50, 40), np.float32))))


def test_progress_counts_the_frames() -> None:
    seen: list[tuple[str, int, int]] = []
    register(burst_of(*still(7, 2)), progress=lambda *a: seen.append(a), threads=1)
    assert seen == [("register", 0, 2), ("register", 1, 2), ("register", 2, 2)]


def example() -> Registration:
    maps = np.stack([np.eye(3), similar(1.01, 0.2, 3, 4), np.eye(3)])
    return Registration(
        maps, 0, SIZE, "similarity", np.array([True, True, False]), np.array([1.0, 0.987654321, np.nan]),
        np.array([0, 12, 3]), np.array([True, True, False]), ("a.png", "b.png", "c.png"),
    )  # fmt: skip


def test_rebase_moves_the_reference_and_refuses_frames_left_out() -> None:
    moved = example().rebase(1)
    assert moved.reference == 1
    np.testing.assert_array_equal(moved.transforms[1], np.eye(3))
    np.testing.assert_allclose(moved.rebase(0).transforms[:2], example().transforms[:2], atol=1e-12)
    for frame in (2, 3, -1):
        with pytest.raises(ArgumentError, match=rf"Registration\.rebase: frame {frame} is not a registered frame"):
            example().rebase(frame)


def test_json_round_trip() -> None:
    before = example()
    after = Registration.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))
    np.testing.assert_array_equal(after.transforms, before.transforms)
    np.testing.assert_array_equal(after.registered, before.registered)
    np.testing.assert_array_equal(after.iterations, before.iterations)
    np.testing.assert_array_equal(after.converged, before.converged)
    np.testing.assert_allclose(after.correlation, before.correlation, atol=1e-6)
    assert (after.reference, after.size, after.motion, after.names) == (0, SIZE, "similarity", before.names)
    assert after.to_json() == before.to_json()


BROKEN: list[tuple[tuple[str | int, ...], Any]] = [
    (("format",), "something else"), (("version",), 2), (("version",), None), (("motion",), "rigid"),
    (("width",), 0), (("height",), -3), (("width",), "wide"), (("reference",), 3), (("reference",), -1),
    (("reference",), None), (("frames",), []), (("frames",), 5), (("frames",), None), (("frames", 1), "b.png"),
    (("frames", 1, "transform"), [[1, 0], [0, 1]]), (("frames", 1, "transform"), None),
    (("frames", 1, "transform"), [[float("nan")] * 3] * 3), (("frames", 1, "correlation"), "high"),
    (("frames", 1, "iterations"), float("inf")), (("frames", 1, "iterations"), None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), BROKEN)
def test_broken_json_is_an_argument_error(path: tuple[Any, ...], value: Any) -> None:
    data = example().to_json()
    at: Any = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(ArgumentError, match=r"Registration\.from_json: not saved transforms of pyfocus"):
        Registration.from_json(data)


@pytest.mark.parametrize("key", ["format", "version", "motion", "width", "height", "reference", "frames"])
def test_json_without_a_key_is_an_argument_error(key: str) -> None:
    data = example().to_json()
    del data[key]
    with pytest.raises(ArgumentError, match=key):
        Registration.from_json(data)


@pytest.mark.parametrize("data", [None, 3, "text", [], {}])
def test_json_of_something_else_is_an_argument_error(data: Any) -> None:
    with pytest.raises(ArgumentError, match=r"Registration\.from_json"):
        Registration.from_json(data)


#: Root mean square distance of the corners from the truth, px: measured with a fifth to spare.
BARS = {"align": 0.07, "flicker": 0.07, "noisy": 0.15, "halo": 0.24, "raw": 0.09, "raw_noisy": 0.27, "easy": 0.12}


@pytest.mark.parametrize("scene", BARS)
def test_shared_brackets(shared: Path, scene: str) -> None:
    folder = shared / "data" / "brackets" / scene
    facts = json.loads((folder / "scene.json").read_text())
    true = np.array([np.vstack([t, [0, 0, 1]]) for t in facts["transforms"]])
    found = register(read_burst([str(folder / "frames")], domain="auto"), reference=facts["reference"])
    assert found.registered.all() and found.correlation.min() > 0.98
    points = corners(found.size)
    distance = np.linalg.norm(apply(found.transforms, points) - apply(true, points), axis=-1)
    assert np.sqrt(np.square(distance).mean()) < BARS[scene]


@pytest.mark.parametrize("motion", ["translation", "homography"])
def test_other_motions_on_a_burst(motion: Motion) -> None:
    found = register(burst_of(*still(8, 3)), motion=motion, reference="first", threads=1)
    assert found.registered.all() and found.motion == motion
    for i, matrix in enumerate(found.transforms):
        assert worst(matrix, similar(1, 0, i, 0.5 * i)) < 0.2


def test_photos_of_different_places_do_not_register(shared: Path) -> None:
    photos = sorted((shared / "data" / "photos").glob("*.jpg"))[:3]
    lumas = []
    for photo in photos:
        data = read_burst([str(photo)])[0].data
        step = 1 + data.shape[1] // 700
        lumas.append(luminance_of(Frame(np.ascontiguousarray(data[::step, ::step][:400, :600]))))
    for i, a in enumerate(lumas):
        for b in lumas[:i]:
            assert a.size == b.size and not align_pair(a, b).good
