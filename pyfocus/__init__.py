"""Focus stacking straight from the sensor data: a burst of frames in, one all-in-focus picture out.

    import pyfocus

    result = pyfocus.stack(pyfocus.read_burst("bracket/"))
    pyfocus.write_image("sharp.tif", result.image())

Frames may as well be arrays, (H, W) or (H, W, 3), uint8, uint16 or float32, or arrive one by one:

    stacker = pyfocus.Stacker()
    for frame in stage:
        stacker.push(frame)
    result = stacker.finish()
    picture, depth = result.image(), result.depth()

Threads: all processors, unless the environment's PYFOCUS_THREADS or a ``threads`` argument says otherwise.
"""

from __future__ import annotations

import logging

__version__ = "0.1.0"

# stack, register, warp and develop are functions here and also the modules they come from. An import of a module sets
# the package's attribute, but only the first one does: every name below is bound after its module was loaded, for good.
from . import _C as _C
from . import environment, errors, relief, simulate
from .burst import Burst, Frame, Meta
from .combine import CombinedFuser
from .defects import Defects, find_defects, repaired
from .depthmap import DepthMapFuser
from .develop import develop
from .fuse import Average, Fused, Fuser
from .io import read_burst, write_depth, write_dng, write_height, write_image, write_mesh, write_provenance
from .laplacian import Laplacian
from .noise import NoiseLevel, estimate_noise
from .register import Registration, register
from .slabs import stack_slabs
from .stack import stack
from .stacker import Stacked, Stacker
from .warp import warp
from .wavelet import WaveletFuser

__all__ = [
    "Average",
    "Burst",
    "CombinedFuser",
    "Defects",
    "DepthMapFuser",
    "Frame",
    "Fused",
    "Fuser",
    "Laplacian",
    "Meta",
    "NoiseLevel",
    "Registration",
    "Stacked",
    "Stacker",
    "WaveletFuser",
    "__version__",
    "develop",
    "errors",
    "estimate_noise",
    "find_defects",
    "read_burst",
    "register",
    "relief",
    "repaired",
    "simulate",
    "stack",
    "stack_slabs",
    "warp",
    "write_depth",
    "write_dng",
    "write_height",
    "write_image",
    "write_mesh",
    "write_provenance",
]

try:
    _C.set_threads(environment.threads())
except errors.ArgumentError as error:
    # a library must stay importable: one line now, all processors after; the command line stops here instead
    logging.getLogger(__name__).error("pyfocus: error: %s", error)
