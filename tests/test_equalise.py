"""Exposure drift: known gains come back although the frames differ in focus, place and noise."""

from __future__ import annotations

import numpy as np
import pytest

from pyfocus.burst import Frame, Meta
from pyfocus.equalise import Equaliser

LINEAR = Meta(encoding="linear")
GAINS = np.array([0.93, 1.08, 1.21])


def gains_of(frames, transforms=None, meta=LINEAR):
    equaliser = Equaliser()
    found = []
    for k, frame in enumerate(frames):
        found.append(equaliser.gain(Frame(frame, meta), np.eye(3) if transforms is None else transforms[k]))
    return found


def test_the_first_frame_is_the_measure(small_bracket):
    np.testing.assert_array_equal(gains_of(small_bracket.frames[:1])[0], [1, 1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint8])
def test_a_known_gain_per_channel_comes_back_under_defocus(small_bracket, dtype):
    first, last = small_bracket.frames[0], small_bracket.frames[4] / GAINS
    if dtype != np.float32:
        first, last = (np.rint(v * np.iinfo(dtype).max) for v in (first, last))
    found = gains_of([first.astype(dtype), last.astype(dtype)])[1]
    np.testing.assert_allclose(found, GAINS, rtol=0.01)  # worst 6.1e-4: light that crosses the picture's border


def test_of_encoded_pictures_it_is_the_linear_light_that_counts(small_bracket):
    from pyfocus.colour import linear_to_srgb

    encoded = [(linear_to_srgb(v) * 65535 + 0.5).astype(np.uint16) for v in (small_bracket.frames[1] / [1, 1.1, 0.9],)]
    first = (linear_to_srgb(small_bracket.frames[1]) * 65535 + 0.5).astype(np.uint16)
    np.testing.assert_allclose(gains_of([first, *encoded], meta=Meta())[1], [1, 1.1, 0.9], rtol=1e-3)


def test_of_a_mosaic_each_plane_has_its_gain(small_bracket):
    colour = np.array([[0, 1], [1, 2]])
    site = np.tile(colour, (80, 100))
    meta = Meta(cfa="RGGB", black=(512.0,) * 4, white=16000.0, white_balance=(1.9, 1.0, 1.5))
    mosaics = []
    for frame, gain in ((small_bracket.frames[0], np.ones(3)), (small_bracket.frames[3], GAINS)):
        light = np.take_along_axis(frame / gain / [1.9, 1.0, 1.5], site[..., None], axis=2)[..., 0]
        mosaics.append(np.rint(512 + (16000 - 512) * light).astype(np.uint16))
    found = gains_of(mosaics, meta=meta)[1]
    np.testing.assert_allclose(found, GAINS[[0, 1, 1, 2]], rtol=0.01)  # worst 1.2e-3


def test_the_transform_says_where_both_see_the_same(small_bracket):
    """The second frame is darker and lies 30 px to the right; a bright bar that only it sees must not count."""
    first = small_bracket.frames[1]
    second = np.roll(first, 30, axis=1) / 1.25
    second[:, :30] = 0.85
    shift = np.array([[1, 0, 30.0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(gains_of([first, second], [np.eye(3), shift])[1], 1.25, rtol=5e-3)


def test_clipped_and_dark_places_do_not_count(small_bracket):
    first = small_bracket.frames[2].copy()
    second = first / 1.3
    first[:40], second[:40] = 1.0, 1.0  # blown in both
    first[120:], second[120:] = 1e-4, 2e-4  # noise in both
    np.testing.assert_allclose(gains_of([first, second.astype(np.float32)])[1], 1.3, rtol=2e-3)


def test_what_is_no_drift_is_left_alone(small_bracket):
    first = small_bracket.frames[2]
    for other in (np.zeros_like(first), np.ones_like(first), first * np.float32(0.3)):
        np.testing.assert_array_equal(gains_of([first, other])[1], [1, 1, 1])


def test_a_grey_picture_has_one_gain(small_bracket):
    grey = small_bracket.frames[2][..., 0]
    np.testing.assert_allclose(gains_of([grey, grey / np.float32(1.1)])[1], [1.1], rtol=1e-4)


def test_threads_do_not_matter(small_bracket):
    found = []
    for threads in (1, 3):
        equaliser = Equaliser(threads=threads)
        equaliser.gain(Frame(small_bracket.frames[0], LINEAR), np.eye(3))
        found.append(equaliser.gain(Frame(small_bracket.frames[3], LINEAR), np.eye(3)).tobytes())
    assert found[0] == found[1]
