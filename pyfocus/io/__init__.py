"""Files in and out: the only place that knows rawpy, tifffile and imagecodecs, loaded when first needed."""

from __future__ import annotations

from .atomic import atomic, check_target
from .dng import dng_bytes, write_dng
from .icc import srgb_profile
from .image_files import MIN_SIZE_PX, upright
from .maps import write_height, write_provenance
from .mesh_files import write_mesh
from .order import FrameSource, find_frames, natural_key
from .raw_files import develop_mosaic, libraw_version
from .read import check_same, read_burst, read_image
from .stored import load_json, map_array
from .write import write_depth, write_image

__all__ = [
    "MIN_SIZE_PX",
    "FrameSource",
    "atomic",
    "check_same",
    "check_target",
    "develop_mosaic",
    "dng_bytes",
    "find_frames",
    "libraw_version",
    "load_json",
    "map_array",
    "natural_key",
    "read_burst",
    "read_image",
    "srgb_profile",
    "upright",
    "write_depth",
    "write_dng",
    "write_height",
    "write_image",
    "write_mesh",
    "write_provenance",
]
