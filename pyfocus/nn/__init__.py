"""Networks for focus stacking, and the kernels they stand on, in torch.

    import torch
    from pyfocus import nn

    net = nn.FocusDeep("rgb", frames=30)
    sharp = net(torch.rand(1, 30, 3, 128, 128))  # (1, 3, 128, 128)

This is the only part of the package that needs torch; ``import pyfocus`` does not load it.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "pyfocus.nn needs torch, which is not installed: pip install 'pyfocus-stack[torch]'", name="torch"
    ) from None

from .checkpoint import load_model, save_model
from .focusdeep import FocusDeep
from .fusers import BurstFuser, StreamFuser
from .ops import deform_conv2d, warp_affine
from .stream import FocusDeepStream
from .unet import UNet

__all__ = [
    "BurstFuser",
    "FocusDeep",
    "FocusDeepStream",
    "StreamFuser",
    "UNet",
    "deform_conv2d",
    "load_model",
    "save_model",
    "warp_affine",
]
