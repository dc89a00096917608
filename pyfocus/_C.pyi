"""Native kernels. Arrays cross through DLPack; outputs come from the caller, ``threads`` 0 is the pool's default."""

from collections.abc import Sequence
from typing import Any, TypeAlias

# NumPy, torch or CuPy: whatever has __dlpack__
_Array: TypeAlias = Any
_Offsets: TypeAlias = Sequence[Sequence[int]] | None
_PerPlane: TypeAlias = Sequence[float] | None

def threads() -> int: ...
def set_threads(count: int) -> None: ...
def isa() -> str: ...
def set_isa(level: int) -> None: ...
def warp(
    source: _Array,
    matrices: _Array,
    destination: _Array,
    valid: _Array | None = None,
    interpolation: int = 1,
    root: bool = False,
    square: bool = False,
    mosaic: _Offsets = None,
    table: _Array | None = None,
    scale: _PerPlane = None,
    offset: _PerPlane = None,
    threads: int = 0,
) -> None: ...
def luminance(
    source: _Array,
    weights: Sequence[float],
    destination: _Array,
    factor: int = 1,
    row_step: int = 1,
    square_root: bool = False,
    mosaic: _Offsets = None,
    table: _Array | None = None,
    scale: _PerPlane = None,
    offset: _PerPlane = None,
    threads: int = 0,
) -> None: ...
def demosaic(
    source: _Array,
    red: Sequence[int],
    scale: Sequence[float],
    offset: Sequence[float],
    destination: _Array,
    threads: int = 0,
) -> None: ...
def unpack(
    source: _Array,
    destination: _Array,
    scale: Sequence[float],
    offset: Sequence[float],
    srgb: bool = False,
    mosaic: _Offsets = None,
    threads: int = 0,
) -> None: ...
def pyramid_down(source: _Array, destination: _Array, add: bool = False, threads: int = 0) -> None: ...
def pyramid_up(source: _Array, destination: _Array, gain: float = 1.0, add: bool = False, threads: int = 0) -> None: ...
def pyramid_smooth(source: _Array, destination: _Array, threads: int = 0) -> None: ...
def pyramid_energy(fine: _Array, coarse: _Array, energy: _Array, threads: int = 0) -> None: ...
def pyramid_rate(
    rating: _Array,
    coarse: _Array,
    valid: _Array | None,
    slope: float,
    floor: float,
    peak: _Array,
    before: _Array,
    threads: int = 0,
) -> None: ...
def pyramid_fold(
    fine: _Array,
    coarse: _Array,
    rating: _Array,
    before: _Array,
    peak: _Array,
    power: int,
    numerator: _Array,
    denominator: _Array,
    threads: int = 0,
) -> None: ...
def pyramid_collapse(
    numerator: _Array, denominator: _Array, coarse: _Array, destination: _Array, threads: int = 0
) -> None: ...
def pyramid_valid(source: _Array, destination: _Array, threads: int = 0) -> None: ...

ECC_CHUNK_ROWS: int

def ecc_sum_count(parameters: int) -> int: ...
def ecc(
    fixed: _Array,
    moving: _Array,
    matrix: _Array,
    parameters: int,
    workspace: _Array,
    sums: _Array,
    mask: _Array | None = None,
    row_step: int = 1,
    threads: int = 0,
) -> None: ...
