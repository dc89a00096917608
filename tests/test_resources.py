"""The resource report's reading of ptxas, and what it calls too much. The compilers' part runs in .ci/run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "resources.py"


@pytest.fixture(scope="module")
def resources() -> Any:
    spec = importlib.util.spec_from_file_location("resources", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAID = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN7pyfocus10run_kernelE1' for 'sm_80'
ptxas info    : Function properties for _ZN7pyfocus10run_kernelE1
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 56 registers, used 1 barriers, 416 bytes smem, 872 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN7pyfocus10run_kernelE2' for 'sm_90'
ptxas info    : Function properties for _ZN7pyfocus10run_kernelE2
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 128 registers, used 0 barriers, 872 bytes cmem[0]
"""


def test_what_ptxas_says_is_read(resources):
    assert resources.ptxas_report(SAID) == [
        ("_ZN7pyfocus10run_kernelE1", "sm_80", {"registers": 56, "shared": 416, "stack": 0, "spills": 0}),
        ("_ZN7pyfocus10run_kernelE2", "sm_90", {"registers": 128, "shared": 0, "stack": 16, "spills": 32}),
    ]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("void pyfocus::run_kernel<pyfocus::(anonymous namespace)::DownKernel>(DownKernel::Params)", "DownKernel"),
        (
            "void pyfocus::run_kernel<pyfocus::_GLOBAL__N__0890fa25_7_warp_cu_fb4745b6::WarpKernel<pyfocus::Bicubic> >"
            "(pyfocus::_GLOBAL__N__0890fa25_7_warp_cu_fb4745b6::WarpKernel<pyfocus::Bicubic>::Params)",
            "WarpKernel<Bicubic>",
        ),
        ("somebody_elses(float*)", "somebody_elses(float*)"),
    ],
)
def test_kernels_are_called_by_their_struct(resources, function, name):
    assert resources.kernel_name(function)[0] == name


def test_what_is_over_its_limit_is_named(resources):
    limit = {"registers": 40, "shared": 1000, "stack": 0, "spills": 0}
    limits = {"warp: A": {"sm_80": limit}, "warp: gone": {"sm_80": limit}}

    def lines(whole: bool = False, **now: int) -> list[str]:
        return resources.over_limits({"warp: A": {"sm_80": limit | now}}, limits, whole)

    assert lines() == lines(registers=48) == lines(shared=10) == []
    assert lines(registers=49) == ["warp: A, sm_80: registers 49, allowed 48"]
    assert lines(shared=1001) == ["warp: A, sm_80: shared 1001, allowed 1000"]
    assert lines(spills=4, stack=8) == ["warp: A, sm_80: 4 bytes of spills", "warp: A, sm_80: 8 bytes of stack"]
    assert "gone" in lines(whole=True)[0] and len(lines(whole=True)) == 1
    assert "not in resources.json" in resources.over_limits({"new": {"sm_80": limit}}, limits, False)[0]
