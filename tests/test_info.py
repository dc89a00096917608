"""What ``pyfocus info`` says of CUDA, with a device, without a driver, and in a build without CUDA."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyfocus import _C
from pyfocus.cli import info

CARD = {"name": "Card 9000", "compute_capability": "9.0", "processors": 132, "memory": 85e9, "memory_free": 80e9}


def lines(monkeypatch: pytest.MonkeyPatch, **native: Any) -> tuple[dict[str, Any], list[str]]:
    """The JSON's part on CUDA and the lines for people, of a native module that says so."""
    monkeypatch.setattr(info, "_C", SimpleNamespace(**{n: (lambda *_, v=v: v) for n, v in native.items()}))
    cuda = info._cuda()
    return cuda, info._cuda_lines(cuda)


def test_a_device(monkeypatch):
    cuda, said = lines(
        monkeypatch, device_archs="sm_80 sm_90 compute_90", device_versions=(12080, 13000), device_count=1,
        device_reason="", device_facts=CARD,
    )  # fmt: skip
    assert (
        cuda["devices"] == [CARD] and cuda["reason"] is None and (cuda["runtime"], cuda["driver"]) == ("12.8", "13.0")
    )
    assert said == [
        "CUDA: built for sm_80 sm_90 compute_90; runtime 12.8, driver's CUDA 13.0",
        "cuda:0: Card 9000, compute capability 9.0, 85.0 GB, 80.0 GB free",
    ]


def test_no_driver(monkeypatch):
    cuda, said = lines(
        monkeypatch, device_archs="sm_90 compute_90", device_versions=(13000, 0), device_count=0,
        device_reason="CUDA driver version is insufficient for CUDA runtime version",
    )  # fmt: skip
    assert cuda["built"] and cuda["devices"] == [] and cuda["driver"] is None
    assert said[1].endswith("on the processor: CUDA driver version is insufficient for CUDA runtime version")


def test_not_built(monkeypatch):
    cuda, said = lines(
        monkeypatch, device_archs="", device_versions=(0, 0), device_count=0, device_reason="this build has no CUDA"
    )
    assert not cuda["built"] and said == ["CUDA: not built; everything runs on the processor"]


@pytest.mark.cuda
def test_the_device_that_is_there():
    cuda = info.facts()["native"]["cuda"]
    assert len(cuda["devices"]) == _C.device_count() > 0 and cuda["reason"] is None
    assert cuda["devices"][0]["memory"] > 0 and info._cuda_lines(cuda)[1].startswith("cuda:0: ")
