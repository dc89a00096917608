"""A minimal sRGB profile (ICC.1:2001-04, the version 2.4 that every viewer reads), built from its numbers."""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

from ..colour import srgb_to_linear

_D50 = (0.9642, 1.0, 0.8249)
# sRGB primaries adapted from D65 to the profile connection space's D50 (Bradford)
_RED = (0.4360747, 0.2225045, 0.0139322)
_GREEN = (0.3850649, 0.7168786, 0.0971045)
_BLUE = (0.1430804, 0.0606169, 0.7141733)
_CURVE_POINTS = 1024


@lru_cache(maxsize=2)
def srgb_profile(channels: int = 3) -> bytes:
    """ICC profile of sRGB (3 channels), or of a grey scale with sRGB's curve (1 channel); 2 to 3 kB."""
    points = srgb_to_linear(np.arange(_CURVE_POINTS) / (_CURVE_POINTS - 1)) * 65535
    curve = b"curv" + struct.pack(">II", 0, _CURVE_POINTS) + np.rint(points).astype(">u2").tobytes()
    name = "sRGB" if channels == 3 else "sRGB grey"
    tags = {
        b"desc": _description(f"pyfocus {name}"),
        b"cprt": b"text" + bytes(4) + b"No copyright, use freely\0",
        b"wtpt": _xyz(_D50),
    }
    if channels == 3:
        tags |= {b"rXYZ": _xyz(_RED), b"gXYZ": _xyz(_GREEN), b"bXYZ": _xyz(_BLUE)}
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags |= {b"kTRC": curve}
    return _assemble(tags, b"RGB " if channels == 3 else b"GRAY")


def profile_channels(profile: bytes) -> int | None:
    """3 for an RGB profile, 1 for a grey one, None for other colour spaces and bytes that are no profile."""
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return None
    return {b"RGB ": 3, b"GRAY": 1}.get(profile[16:20])


def _assemble(tags: dict[bytes, bytes], space: bytes) -> bytes:
    table, body, places = b"", b"", dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        if data not in places:  # the three curves are one
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, places[data], len(data))
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s6H4s", size, b"\0\0\0\0", 0x02400000, b"mntr", space, b"XYZ ",
                         2026, 1, 1, 0, 0, 0, b"acsp")  # fmt: skip
    header += bytes(28) + b"".join(_fixed(v) for v in _D50)  # platform, flags, device, intent 0; illuminant
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body


def _description(text: str) -> bytes:
    ascii_text = text.encode("ascii") + b"\0"
    # an ASCII name, then an empty Unicode one and an empty Macintosh one, as version 2 wants them
    return b"desc" + bytes(4) + struct.pack(">I", len(ascii_text)) + ascii_text + bytes(8 + 2 + 1 + 67)


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(v) for v in values)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))
