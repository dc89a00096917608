"""The published archive in small: its layout with frames of a scene that is a formula, moved by known maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyfocus.burst import Meta
from pyfocus.colour import encode_u16
from pyfocus.io import dng_bytes, write_image
from pyfocus.raw import plane_offsets
from pyfocus.simulate.camera import NEUTRAL

KEY = "train/lumix_lens/leaf1"  # complete
NAMES = (KEY, "test/olympus_macro_lens/leaf2", "train/olympus_macro_lens/leaf1", "test/lumix_lens/chairs3")
SIZE = (96, 128)  # of the pictures; raws have 8 px more on every side
BORDER, FRAMES = 8, 4
RAWS = ("P1_2", "P1_9", "P1_10", "P1_11")  # natural order is focus order
CROP = {"black_level": [512.0] * 4, "white_level": [16383.0] * 4, "cam_wb": [2.0, 1.0, 1.0, 1.5]}


def to_reference(k: int) -> np.ndarray:
    """(3, 3) from frame k's pixels to frame 0's: what the archive's transforms are."""
    return np.array([[1 + 0.004 * k, 0.002 * k, -1.3 * k], [-0.002 * k, 1 + 0.004 * k, 0.9 * k], [0, 0, 1.0]])


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """White-balanced linear light (3, ...) at points of frame 0, slow enough for any resampling.

    The colours are one wave of three heights: demosaicing softens differences of colour, which would look like a shift.
    """
    wave = 0.4 + 0.12 * (np.sin(0.11 * x + 0.05 * y) + np.sin(0.03 * x - 0.12 * y + 1))
    return np.stack([0.9 * wave, wave, 0.95 * wave])


def light_of(k: int, border: int = 0) -> np.ndarray:
    """Frame k, (3, h, w), with a border around the picture."""
    y, x = np.mgrid[-border : SIZE[0] + border, -border : SIZE[1] + border].astype(np.float64)
    points = np.stack([x, y, np.ones_like(x)], -1) @ to_reference(k).T
    return scene(points[..., 0], points[..., 1])


def make_archive(root: Path, cfa: str = "RGGB") -> Path:
    """One photo with everything, one with raws and the truth for them, one that is empty, one that is listed only."""
    import torch

    top = root / "focus_stack_dataset" / "dataset"
    for name in NAMES[:3]:
        (top / name).mkdir(parents=True)
    rows = ["set;lens;photo", *(name.replace("/", ";") for name in NAMES)]
    (top / "dataset.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode() + b"\r\n")
    for name in NAMES[:2]:
        _write_raws(top / name / "raw", cfa)
        torch.save([to_reference(k)[:2].astype(np.float32) for k in range(1, FRAMES)], top / name / "transforms.pth")
        _jpeg(top / name / "helicon_focus_aligned_tiff.jpg", light_of(0))
    whole = top / KEY
    _jpeg(whole / "helicon_focus.jpg", light_of(0) * 0.98)
    for folder in ("jpg", "aligned", "crops_raw", "crops3"):
        (whole / folder).mkdir()
    for k, raw in enumerate(RAWS):
        _jpeg(whole / "jpg" / f"{raw}.jpg", light_of(k))
        _jpeg(whole / "aligned" / f"burst_{k}.jpg", light_of(0) * (1 - 0.01 * k))
    target = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    target[:, 0], target[:, 2] = 255, 255
    torch.save(
        {"burst": torch.rand(FRAMES, 4, 8, 8), "target": target, "meta_info": CROP}, whole / "crops_raw/crop0.pkl"
    )
    burst = torch.full((FRAMES, 3, 16, 16), 255, dtype=torch.uint8)
    torch.save({"burst": burst, "target": target}, whole / "crops3" / "crop0.pkl")
    return top


def _write_raws(folder: Path, cfa: str) -> None:
    """DNGs by the archive's names: LibRaw looks at what is in a file, not at its name."""
    folder.mkdir()
    facts = Meta(
        make="Panasonic", model="DC-GX9", cfa=cfa, black=(512.0,) * 4, white=16383.0,
        white_balance=(1 / NEUTRAL[0], 1.0, 1 / NEUTRAL[2]),
    )  # fmt: skip
    for k, name in enumerate(RAWS):
        light = light_of(k, BORDER)
        mosaic = np.empty(light.shape[1:])
        for channel, (dy, dx) in zip((0, 1, 1, 2), plane_offsets(cfa), strict=True):
            mosaic[dy::2, dx::2] = light[channel, dy::2, dx::2] * NEUTRAL[channel]
        counts = np.rint(512 + mosaic * (16383 - 512)).astype(np.uint16)
        (folder / f"{name}.rw2").write_bytes(dng_bytes(counts, facts))


def _jpeg(path: Path, light: np.ndarray) -> None:
    write_image(path, encode_u16(light.transpose(1, 2, 0)), bits=8, quality=98)
