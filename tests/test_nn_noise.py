"""Noise to train with, against the published distribution and its moments in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pyfocus.errors import ArgumentError  # noqa: E402
from pyfocus.nn.noise import add_noise, noise_variance, sample_noise  # noqa: E402
from pyfocus.simulate import iso_noise  # noqa: E402


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_levels_are_drawn_as_published():
    count = 40_000
    shot, read = sample_noise(count, seeded(), dtype=torch.float64).numpy().T
    assert shot.min() >= 1e-4 and shot.max() <= 0.012
    place = (np.log(shot) - math.log(1e-4)) / (math.log(0.012) - math.log(1e-4))
    histogram = np.histogram(place, 10, (0, 1))[0] / count
    assert np.abs(histogram - 0.1).max() < 5 * math.sqrt(0.1 * 0.9 / count)  # even: five standard errors
    rest = np.log(read) - (2.18 * np.log(shot) + 1.20)
    assert abs(rest.mean()) < 5 * 0.26 / math.sqrt(count)
    assert abs(rest.std() - 0.26) < 5 * 0.26 / math.sqrt(2 * count)
    assert abs(np.corrcoef(rest, place)[0, 1]) < 5 / math.sqrt(count)
    assert abs((np.abs(rest) < 0.26).mean() - 0.6827) < 5 * math.sqrt(0.6827 * 0.3173 / count)  # normal, not only wide


def test_medians_are_those_of_the_simulated_camera():
    for iso in (0.0, 0.5, 1.0):
        shot, read = iso_noise(iso)
        drawn = sample_noise(4001, seeded(1), shot_range=(shot, shot), dtype=torch.float64)
        np.testing.assert_allclose(drawn[:, 0], shot, rtol=1e-12)
        assert abs(math.log(float(drawn[:, 1].median()) / read)) < 5 * 1.2533 * 0.26 / math.sqrt(4001)


def test_a_seed_means_the_same_pairs():
    assert torch.equal(sample_noise(5, seeded(3)), sample_noise(5, seeded(3), dtype=torch.float64).float())
    assert not torch.equal(sample_noise(5, seeded(3)), sample_noise(5, seeded(4)))
    assert sample_noise(0, seeded()).shape == (0, 2) and sample_noise(2).shape == (2, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_added_noise_has_the_moments_of_each_burst(dtype):
    light = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=dtype)
    count = 50_000
    noise = torch.tensor([[1e-4, 1e-6], [0.012, 2e-4]], dtype=torch.float64)
    x = light[:, None].expand(4, count).expand(2, 4, count)
    rest = (add_noise(x, noise, seeded()).double() - x.double()).numpy()
    expected = (noise[:, :1] * light.double() + noise[:, 1:]).numpy()
    error = 5 / math.sqrt(count)
    assert (np.abs(rest.mean(-1)) < error * np.sqrt(expected)).all()
    assert (np.abs(rest.var(-1) / expected - 1) < error * math.sqrt(2)).all()
    assert (np.abs((rest**4).mean(-1) / expected**2 - 3) < error * math.sqrt(96)).all()
    assert abs(np.corrcoef(rest.reshape(8, count))[np.triu_indices(8, 1)]).max() < error * 1.2  # 28 pairs
    assert (rest[:, 0] < 0).any(), "noise below black is kept"


def test_variance_below_black_is_nothing():
    x = torch.tensor([[-0.5, -0.01, 0.2]], dtype=torch.float64)
    noise = torch.tensor([0.01, 1e-4], dtype=torch.float64)
    np.testing.assert_allclose(noise_variance(x, noise), [[0, 0, 0.2 * 0.01 + 1e-4]], rtol=1e-12)
    assert torch.equal(add_noise(x, noise, seeded())[0, :2], x[0, :2])
    assert torch.equal(noise_variance(x, noise), noise_variance(x, noise[None]))
    assert add_noise(x.float(), noise).dtype == torch.float32
    assert torch.equal(add_noise(x, torch.zeros(2)), x)


def test_what_it_does_not_take():
    x = torch.zeros(2, 3, 4)
    for noise in (torch.zeros(3), torch.zeros(3, 2), torch.zeros(2, 2, 1), torch.tensor(0.1)):
        with pytest.raises(ArgumentError, match=r"noise_variance: noise must be \(2,\) or \(2, 2\), .* got"):
            add_noise(x, noise)
    with pytest.raises(ArgumentError, match="add_noise: x must be of floats"):
        add_noise(x.int(), torch.zeros(2))
    for arguments in ({"count": -1}, {"count": 1, "shot_range": (0.0, 1.0)}, {"count": 1, "shot_range": (2e-3, 1e-3)}):
        with pytest.raises(ArgumentError, match="sample_noise: count must be 0 or more"):
            sample_noise(**arguments)
