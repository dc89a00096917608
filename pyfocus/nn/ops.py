"""The kernels as torch operators, on the CPU or a CUDA device by where the tensors lie.

``torch.ops.pyfocus.deform_conv2d`` and ``warp_affine`` can be exported and compiled; :func:`deform_conv2d` and
:func:`warp_affine` here are the same with the small conveniences of Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _C
from ..errors import ArgumentError

Pair = int | Sequence[int]
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos3")
_WARPED = (torch.float32, torch.float16, torch.bfloat16)


def deform_conv2d(
    input: Tensor,  # (N, C, H, W)
    weight: Tensor,  # (O, C / groups, kh, kw)
    offset: Tensor,  # (N, offset_groups kh kw 2, h, w)
    mask: Tensor | None = None,  # (N, offset_groups kh kw, h, w)
    bias: Tensor | None = None,  # (O,)
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    offset_groups: int = 1,
) -> Tensor:  # (N, O, h, w)
    """Modulated deformable convolution (Zhu et al., CVPR 2019), torchvision's layout; mask None: all ones.

    Convention: tap (i, j) of the kernel at output pixel (y, x) samples y stride + i dilation - padding + offset, in
    input pixels, offsets as pairs (y, x), bilinear with zero outside; pairs of arguments are (y, x). ``h``, ``w`` are
    the sizes that ``conv2d`` would give.

    Data (input, weight, bias) is of one type: float32, float64, float16 or bfloat16. Offset and mask are taken to
    float32, or to float64 with float64 data; under autocast too, while data gets autocast's type. Differentiable once,
    by every tensor; deterministic on the CPU. Raises ArgumentError.
    """
    real = coordinate_dtype(input.dtype)
    result: Tensor = torch.ops.pyfocus.deform_conv2d(
        input, weight, offset.to(real), None if mask is None else mask.to(real), bias, _pair("stride", stride),
        _pair("padding", padding), _pair("dilation", dilation), groups, offset_groups,
    )  # fmt: skip
    return result


def warp_affine(input: Tensor, matrix: Tensor, interpolation: str = "bicubic") -> Tensor:
    """Each image (C, H, W) of the batch resampled through its affine map: (N, C, H, W), size and type as ``input``.

    Convention: ``matrix`` (N, 2, 3) maps destination pixels (x, y) to source pixels; pixel centres at integers. Outside
    the source its edge is repeated. ``interpolation``: bilinear, bicubic (Catmull-Rom) or lanczos3, of the values as
    they are. Data is float32, float16 or bfloat16, arithmetic in float32, under autocast too. The matrix is read on the
    host: one in CUDA memory makes the host wait. Not differentiable: a backward pass through it raises. Raises
    ArgumentError.
    """
    result: Tensor = torch.ops.pyfocus.warp_affine(input, matrix, interpolation)
    return result


def coordinate_dtype(data: torch.dtype) -> torch.dtype:
    """The type of offsets and masks beside data of type ``data``."""
    return torch.float64 if data == torch.float64 else torch.float32


def _pair(name: str, value: Pair) -> list[int]:
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2:
        raise ArgumentError(f"deform_conv2d: {name} must be one number or a pair (y, x), got {value!r}")
    return pair


# --- deform_conv2d -----------------------------------------------------


@torch.library.custom_op("pyfocus::deform_conv2d", mutates_args=())
def _deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    steps = _steps(stride, padding, dilation, groups, offset_groups)
    image, kernel, shift, scale, plus = _plain(input, weight, offset, mask, bias)
    out = image.new_empty((image.shape[0], kernel.shape[0], *shift.shape[2:]))
    _C.deform_conv(image, kernel, shift, scale, plus, out, _workspace(image, kernel, steps, False), **steps)
    return out


@torch.library.custom_op("pyfocus::deform_conv2d_backward", mutates_args=())
def _deform_conv2d_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by input, weight, offset, mask and bias; what is not ``wanted`` is empty."""
    steps = _steps(stride, padding, dilation, groups, offset_groups)
    upstream, image, kernel, shift, scale = _plain(grad_output, input, weight, offset, mask)
    grads = _empty_gradients(image, kernel, shift, scale, wanted)
    by_input, by_weight, by_offset, by_mask, by_bias = (
        grad if want else None for grad, want in zip(grads, wanted, strict=True)
    )
    _C.deform_conv_backward(
        upstream, image, kernel, shift, scale, by_input, by_offset, by_mask, by_weight, by_bias,
        _workspace(image, kernel, steps, True), **steps,
    )  # fmt: skip
    return grads


def _steps(
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int, offset_groups: int
) -> dict[str, Any]:
    pairs = {"stride": list(stride), "pad": list(padding), "dilation": list(dilation)}
    return {**pairs, "groups": groups, "offset_groups": offset_groups}


def _plain(*tensors: Tensor | None) -> list[Any]:
    """Each as the kernels take it: in C order, and no part of a graph."""
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


def _workspace(image: Tensor, kernel: Tensor, steps: dict[str, Any], backward: bool) -> Tensor:
    size = _C.deform_conv_workspace(image, kernel, **steps, backward=backward)
    return torch.empty(size, dtype=torch.uint8, device=image.device)


def _empty_gradients(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = (input, weight, offset, offset if mask is None else mask, weight)
    shapes = [tensor.shape for tensor in like[:4]] + [weight.shape[:1]]
    rows = zip(like, shapes, wanted, strict=True)
    a, b, c, d, e = (tensor.new_empty(shape if want else (0,)) for tensor, shape, want in rows)
    return a, b, c, d, e


@_deform_conv2d.register_fake
def _(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    for name, tensor in (("input", input), ("weight", weight), ("offset", offset)):
        torch._check(tensor.dim() == 4, lambda name=name: f"deform_conv2d: {name} must have 4 dimensions")
    for i in (0, 1):
        room = input.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1
        torch._check(
            offset.shape[2 + i] == torch.sym_max(room // stride[i] + 1, 0),
            lambda: "deform_conv2d: offset must have the output's height and width",
        )
    return input.new_empty((input.shape[0], weight.shape[0], offset.shape[2], offset.shape[3]))


@_deform_conv2d_backward.register_fake
def _(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_gradients(input, weight, offset, mask, wanted)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, offset, mask, _, *ctx.steps = inputs
    ctx.save_for_backward(input, weight, offset, mask)


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[:5])
    grads = torch.ops.pyfocus.deform_conv2d_backward(grad_output, *ctx.saved_tensors, *ctx.steps, wanted)
    return (*(grad if want else None for grad, want in zip(grads, wanted, strict=True)), *[None] * 5)


_deform_conv2d.register_autograd(_differentiate, setup_context=_keep)


# --- autocast ----------------------------------------------------------

_LIBRARY = torch.library.Library("pyfocus", "FRAGMENT")


def _register_autocast(device: str, key: str) -> None:
    """Data in autocast's type, coordinates in float32: register_autocast of torch knows one type for all."""

    def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        return tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)

    def rule(
        input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, *steps: Any
    ) -> Tensor:
        data, real = torch.get_autocast_dtype(device), torch.float32
        with torch.autocast(device, enabled=False):
            result: Tensor = torch.ops.pyfocus.deform_conv2d(
                cast(input, data), cast(weight, data), cast(offset, real), cast(mask, real), cast(bias, data), *steps
            )
        return result

    _LIBRARY.impl("deform_conv2d", rule, key)


_register_autocast("cpu", "AutocastCPU")
_register_autocast("cuda", "AutocastCUDA")


# --- warp_affine -------------------------------------------------------


@torch.library.custom_op("pyfocus::warp_affine", mutates_args=())
def _warp_affine(input: Tensor, matrix: Tensor, interpolation: str) -> Tensor:
    _check_warp(input, matrix, interpolation)
    n, c, h, w = input.shape
    planes = input.detach().to(torch.float32).contiguous().view(n * c, h, w)
    maps = torch.zeros((n, c, 3, 3), dtype=torch.float64)
    maps[:, :, :2] = matrix.detach().to("cpu", torch.float64)[:, None]
    maps[:, :, 2, 2] = 1
    maps, out = maps.view(-1, 3, 3), torch.empty_like(planes)
    for first in range(0, len(planes), 4):  # the kernel takes four planes at once, each with its own map
        part = slice(first, first + 4)
        _C.warp(planes[part], maps[part], out[part], interpolation=INTERPOLATIONS.index(interpolation))
    return out.view(n, c, h, w).to(input.dtype)


@_warp_affine.register_fake
def _(input: Tensor, matrix: Tensor, interpolation: str) -> Tensor:
    _check_warp(input, matrix, interpolation)
    return input.new_empty(input.shape)


def _check_warp(input: Tensor, matrix: Tensor, interpolation: str) -> None:
    if input.dim() != 4 or input.dtype not in _WARPED:
        raise ArgumentError(
            "warp_affine: input must be (N, C, H, W) float32, float16 or bfloat16, "
            f"got {tuple(input.shape)} {input.dtype}"
        )
    if tuple(matrix.shape) != (input.shape[0], 2, 3):
        raise ArgumentError(
            f"warp_affine: matrix must be ({input.shape[0]}, 2, 3), one map per image, got {tuple(matrix.shape)}"
        )
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(
            f"warp_affine: interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}"
        )


for _device in ("cpu", "cuda"):
    _warp_affine.register_autocast(_device, torch.float32)
