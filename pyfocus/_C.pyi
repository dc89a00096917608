"""Native kernels. Arrays cross through DLPack; outputs come from the caller, ``threads`` 0 is the pool's default."""

from collections.abc import Sequence
from typing import Any, TypeAlias

# NumPy, torch or CuPy: whatever has __dlpack__
_Array: TypeAlias = Any
_Offsets: TypeAlias = Sequence[Sequence[int]] | None
_PerPlane: TypeAlias = Sequence[float] | None

class DeviceArray:
    def __init__(self, shape: Sequence[int], dtype: str = "float32", device: int = 0, mapped: bool = False) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def mapped(self) -> bool: ...
    def reshape(self, shape: Sequence[int]) -> DeviceArray: ...
    def transpose(self, order: Sequence[int]) -> DeviceArray: ...
    def part(self, start: int, stop: int) -> DeviceArray: ...
    def __dlpack__(self, **how: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class PinnedArray:
    def __init__(self, shape: Sequence[int], dtype: str = "float32") -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Event:
    def __init__(self, device: int = 0) -> None: ...
    def synchronize(self) -> None: ...
    def milliseconds_since(self, start: Event) -> float: ...

class Stream:
    def __init__(self, device: int = 0) -> None: ...
    @property
    def handle(self) -> int: ...
    @property
    def device(self) -> int: ...
    def synchronize(self) -> None: ...
    def record(self, event: Event) -> None: ...
    def wait(self, event: Event) -> None: ...

def device_count() -> int: ...
def device_reason() -> str: ...
def device_archs() -> str: ...
def device_versions() -> tuple[int, int]: ...
def device_facts(device: int = 0) -> dict[str, Any]: ...
def device_limit(bytes: int) -> None: ...
def device_in_use() -> int: ...
def mapped_in_use() -> int: ...
def device_copy(destination: _Array, source: _Array, stream: int = 0) -> None: ...
def device_fill(destination: _Array, byte: int = 0, stream: int = 0) -> None: ...
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
    narrow: bool = False,
    mosaic: _Offsets = None,
    table: _Array | None = None,
    scale: _PerPlane = None,
    offset: _PerPlane = None,
    threads: int = 0,
    stream: int = 0,
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
    stream: int = 0,
) -> None: ...
def demosaic(
    source: _Array,
    red: Sequence[int],
    scale: Sequence[float],
    offset: Sequence[float],
    destination: _Array,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def unpack(
    source: _Array,
    destination: _Array,
    scale: Sequence[float],
    offset: Sequence[float],
    srgb: bool = False,
    mosaic: _Offsets = None,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def thin(source: _Array, step_y: int, step_x: int, destination: _Array, threads: int = 0, stream: int = 0) -> None: ...
def pyramid_down(
    source: _Array, destination: _Array, add: _Array | None = None, threads: int = 0, stream: int = 0
) -> None: ...
def pyramid_up(
    source: _Array,
    destination: _Array,
    gain: float = 1.0,
    add: _Array | None = None,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def pyramid_smooth(source: _Array, destination: _Array, threads: int = 0, stream: int = 0) -> None: ...
def pyramid_energy(fine: _Array, coarse: _Array, energy: _Array, threads: int = 0, stream: int = 0) -> None: ...
def pyramid_measure(fine: _Array, coarse: _Array, energy: _Array, threads: int = 0, stream: int = 0) -> None: ...
def pyramid_rate(
    energy: _Array,
    coarse: _Array,
    valid: _Array | None,
    slope: float,
    floor: float,
    before: _Array,
    rating: _Array,
    peak: _Array,
    coarser: _Array | None = None,
    gain: float = 0.0,
    threads: int = 0,
    stream: int = 0,
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
    stream: int = 0,
) -> None: ...
def pyramid_collapse(
    numerator: _Array, denominator: _Array, coarse: _Array, destination: _Array, threads: int = 0, stream: int = 0
) -> None: ...
def pyramid_valid(source: _Array, destination: _Array, threads: int = 0, stream: int = 0) -> None: ...
def pyramid_base(
    coarse: _Array, rating: _Array, base: _Array, weight: _Array, threads: int = 0, stream: int = 0
) -> None: ...
def pyramid_depth(
    rating: _Array,
    peak: _Array,
    before: _Array,
    place: float,
    index: _Array,
    index_weight: _Array,
    total: _Array,
    seen: _Array,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def pyramid_mean(sum: _Array, weight: _Array, destination: _Array, threads: int = 0, stream: int = 0) -> None: ...
def wavelet_measure(fine: _Array, low: _Array, energy: _Array, threads: int = 0, stream: int = 0) -> None: ...
def wavelet_fold(
    fine: _Array,
    rating: _Array,
    before: _Array,
    peak: _Array,
    power: int,
    sums: _Array,
    weight: _Array,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def wavelet_merge(
    low: _Array, sums: _Array, weight: _Array, destination: _Array, threads: int = 0, stream: int = 0
) -> None: ...
def wavelet_pool(
    source: _Array,
    destination: _Array,
    gain: float = 1.0,
    add: _Array | None = None,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def wavelet_spread(
    source: _Array,
    destination: _Array,
    gain: float = 1.0,
    add: _Array | None = None,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def wavelet_valid(source: _Array, destination: _Array, threads: int = 0, stream: int = 0) -> None: ...

ECC_CHUNK_ROWS: int
ECC_STATE_SIZE: int

def ecc_sum_count(parameters: int) -> int: ...
def ecc_chunk_count(height: int, width: int, row_step: int = 1, device: bool = False) -> int: ...
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
    stream: int = 0,
) -> None: ...
def ecc_maximise(
    fixed: _Array,
    moving: _Array,
    state: _Array,
    motion: int,
    most: int,
    workspace: _Array,
    mask: _Array | None = None,
    begin: int = 0,
    row_step: int = 1,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def agree_residual(
    warped: _Array,
    fixed: _Array,
    gain: float,
    offset: float,
    destination: _Array,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def agree_mask(
    difference: _Array, threshold: float, destination: _Array, threads: int = 0, stream: int = 0
) -> None: ...
def tile_gather(source: _Array, origins: _Array, destination: _Array, threads: int = 0, stream: int = 0) -> None: ...
def tile_scatter(
    tiles: _Array,
    origins: _Array,
    window: _Array,
    destination: _Array,
    weight: _Array,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def tile_divide(destination: _Array, weight: _Array, threads: int = 0, stream: int = 0) -> None: ...
def deform_conv_workspace(
    input: _Array,
    weight: _Array,
    stride: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    offset_groups: int = 1,
    backward: bool = False,
) -> int: ...
def deform_conv(
    input: _Array,
    weight: _Array,
    offset: _Array,
    mask: _Array | None,
    bias: _Array | None,
    output: _Array,
    workspace: _Array,
    stride: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    offset_groups: int = 1,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def deform_conv_backward(
    grad_output: _Array,
    input: _Array,
    weight: _Array,
    offset: _Array,
    mask: _Array | None,
    grad_input: _Array | None,
    grad_offset: _Array | None,
    grad_mask: _Array | None,
    grad_weight: _Array | None,
    grad_bias: _Array | None,
    workspace: _Array,
    stride: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    offset_groups: int = 1,
    threads: int = 0,
    stream: int = 0,
) -> None: ...
def depth_cut(vote: _Array, near: str, rule: tuple[float, float, float]) -> None: ...
def depth_peaks(
    vote: _Array,
    seen: _Array,
    near: str,
    rule: tuple[float, float, float],
    sure: float,
    depth: _Array,
    spread: _Array,
    confidence: _Array,
) -> None: ...
def depth_weights(
    vote: _Array,
    seen: _Array,
    near: str,
    rule: tuple[float, float, float],
    depth: _Array,
    spread: _Array,
    narrow: float,
    nothing: float,
) -> None: ...
def depth_blend(
    codes: Sequence[_Array],
    table: _Array,
    weights: _Array,
    top: int,
    left: int,
    least: float,
    destination: _Array,
) -> None: ...
def guided_down(values: _Array, links: _Array, share: float, workspace: _Array, threads: int = 0) -> None: ...
def guided_across(values: _Array, links: _Array, share: float, workspace: _Array, threads: int = 0) -> None: ...
def roots_encode(
    values: _Array, codes: _Array, lowest: float, highest: float, scale: float, threads: int = 0
) -> None: ...
def roots_lookup(codes: Sequence[_Array], table: _Array, destination: _Array, threads: int = 0) -> None: ...
def phase_shift(a: _Array, b: _Array) -> tuple[float, float]: ...

class HostArray:
    """float32 values in the host's memory, for np.asarray."""

class Stack:
    """The pipeline on the host, in C++."""

    def __init__(
        self,
        fuser: str,
        *,
        domain: str = "rgb",
        motion: str = "similarity",
        interpolation: str = "lanczos3",
        align: bool = True,
        equalise: bool = True,
        crop: bool = True,
        depth: bool = True,
        threads: int = 0,
        memory: int = 0,
    ) -> None: ...
    @property
    def memory_in_use(self) -> int: ...
    @property
    def memory_peak(self) -> int: ...
    @property
    def crop(self) -> tuple[int, int, int, int]: ...
    def push(
        self, pixels: _Array, meta: object, transform: Sequence[float] | None = None, place: float = 0.0
    ) -> tuple[bool, list[float], float, int, bool]: ...
    def preview(self, halvings: int = 0) -> HostArray: ...
    def finish(self) -> tuple[HostArray, HostArray | None, HostArray | None]: ...
