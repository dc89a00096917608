"""Scores on brackets with known truth: pyfocus by its command line, beside the best peer."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import halo_ring
import numpy as np
import numpy.typing as npt
import peers
import rawpy
import tifffile
from machine import RESULTS, SHARED, WORK, record, run_all, save, table, verdict

Picture = npt.NDArray[np.float32]


class Peer(NamedTuple):
    """The best peer on a scene, and what must be reached: its PSNR less ``slack`` dB."""

    name: str
    psnr: float
    ssim: float
    slack: float


# From the README beside the brackets, where six tools were run with the best of their known settings.
BEST = {
    "easy": Peer("shinestacker", 41.21, 0.993, 0.0),
    "align": Peer("shinestacker", 32.89, 0.982, 0.0),
    "flicker": Peer("shinestacker", 41.92, 0.992, 1.0),
    "noisy": Peer("focusweave", 31.23, 0.778, 1.0),
    "halo": Peer("openfocus DTCWT", 27.02, 0.930, 1.0),
    "long": Peer("focusweave", 32.28, 0.951, 1.0),
    "raw": Peer("focusweave", 35.12, 0.923, 0.0),
    "raw_noisy": Peer("focusweave", 26.63, 0.545, 1.0),
}
FUSERS = ("average", "laplacian", "wavelet", "depthmap", *(["focusdeep"] if importlib.util.find_spec("torch") else []))
# The least error in the ring beside occlusion borders (halo_ring.py) of focusweave, enfuse and openfocus C and DTCWT.
LEAST_RING = {
    "easy": ("focusweave", 0.0331), "align": ("openfocus C", 0.0401), "flicker": ("focusweave", 0.0187),
    "noisy": ("focusweave", 0.0415), "halo": ("focusweave", 0.0726), "long": ("focusweave", 0.0618),
    "raw": ("focusweave", 0.0264), "raw_noisy": ("focusweave", 0.0497),
}  # fmt: skip
RING_BARS = {"halo": 0.6}  # of that
_FLAT_PX = 16  # side of the blocks in which noise is measured
_FLAT_SHARE = 0.05  # of the blocks, the calmest in the truth


def main(arguments: list[str] | None = None) -> None:
    """Score every scene, print the table, write results/quality.json and .md."""
    options = _options(arguments)
    scenes = sorted(path.parent for path in options.brackets.glob("*/scene.json"))
    scenes = [scene for scene in scenes if not options.scenes or scene.name in options.scenes]
    if not scenes or not options.score.exists():
        print(f"quality: left out, no brackets in {options.brackets} or no {options.score}")
        return
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of TIFF fields it does not know
    judge = halo_ring.load_judge(options.score)
    results = record("quality", {"brackets": [s.name for s in scenes], "peers": options.peers})
    others: list[peers.Tool] = []
    if options.peers:
        others = [peers.focusweave(WORK, options.focusweave, peers.BEST_FOCUSWEAVE), peers.enfuse()]
        others += [peers.openfocus(WORK, method) for method in peers.OPENFOCUS_METHODS]
        results["versions"] |= {tool.name: tool.version for tool in others if tool.commands}
    results["scenes"] = []
    WORK.mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        with tempfile.TemporaryDirectory(dir=WORK) as scratch:
            results["scenes"] += _ours(scene, Path(scratch), judge)
            results["scenes"] += _theirs(scene, Path(scratch), judge, others)
        print(f"{scene.name} done", flush=True)
    save("quality", results, _text(results), options.results)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--brackets", type=Path, default=SHARED / "data" / "brackets", help="a folder per scene (default: %(default)s)")
    add("--score", type=Path, default=SHARED / "tools" / "score.py", help="the judge (default: %(default)s)")
    add("--scenes", nargs="*", metavar="NAME", help="only these")
    add("--peers", action="store_true", help="run focusweave, enfuse and openfocus too, not only quote the best peer")
    add("--focusweave", type=Path, metavar="PROGRAM", help="use this one instead of installing it")
    add("--results", type=Path, default=RESULTS, help="folder for quality.json and quality.md")
    return parser.parse_args(arguments)


def _ours(scene: Path, scratch: Path, judge: ModuleType) -> list[dict[str, Any]]:
    """pyfocus on one scene, with every fuser; raws in both domains, of which one is the default."""
    frames = sorted((scene / "frames").iterdir())
    variants: dict[str, tuple[str, ...]] = {"default": ()}
    variants |= {f"--fuser {name}": ("--fuser", name) for name in FUSERS}
    if frames[0].suffix == ".dng":
        variants |= {"--domain rgb": ("--domain", "rgb"), "--domain raw": ("--domain", "raw")}
    rows = []
    for variant, words in variants.items():
        row = _scored(scene, peers.pyfocus(*words), frames, scratch, judge)
        row["variant"] = variant
        best = BEST.get(scene.name)
        if variant == "default" and best is not None:
            bar = round(best.psnr - best.slack, 2)
            row |= {"best_peer": best._asdict(), "bar": bar, "met": row.get("psnr", 0.0) >= bar}
            row |= _ring_bar(scene.name, row.get("ring"))
        rows.append(row)
    return rows


def _ring_bar(scene: str, reached: float | None) -> dict[str, Any]:
    """How the ring's error compares with the least of the peers', where one is known."""
    if scene not in LEAST_RING or reached is None:
        return {}
    name, least = LEAST_RING[scene]
    found: dict[str, Any] = {"ring_peer": name, "ring_ratio": round(reached / least, 2)}
    if scene in RING_BARS:
        found |= {"ring_bar": RING_BARS[scene], "ring_met": reached <= RING_BARS[scene] * least}
    return found


def _theirs(scene: Path, scratch: Path, judge: ModuleType, tools: list[peers.Tool]) -> list[dict[str, Any]]:
    """Peers on one scene; raws are developed for them first, outside the time that is counted."""
    if not tools:
        return []
    folder = scratch / "developed"
    folder.mkdir()
    frames = [_developed(path, folder) for path in sorted((scene / "frames").iterdir())]
    rows = []
    for tool in tools:
        if tool.commands is None:
            rows.append({"scene": scene.name, "tool": tool.name, "variant": "", "missing": tool.missing})
        else:
            rows.append(_scored(scene, tool, frames, scratch, judge))
    return rows


def _developed(path: Path, folder: Path) -> Path:
    """The frame as any tool reads it, in a folder with nothing else."""
    if path.suffix != ".dng":
        return Path(shutil.copy(path, folder))
    target = folder / f"{path.stem}.tif"
    tifffile.imwrite(target, _develop(path), photometric="rgb")
    return target


def _develop(path: Path) -> npt.NDArray[np.uint16]:
    """(h, w, 3) sRGB by LibRaw with the camera's white balance and no automatic brightness."""
    with rawpy.imread(str(path)) as raw:
        picture: npt.NDArray[np.uint16] = raw.postprocess(
            use_camera_wb=True, no_auto_bright=True, output_bps=16, gamma=(2.4, 12.92)
        )
    return picture


def _scored(scene: Path, tool: peers.Tool, frames: list[Path], scratch: Path, judge: ModuleType) -> dict[str, Any]:
    """Run a tool into an empty folder and judge its picture."""
    folder = scratch / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    output = folder / "out.tif"
    assert tool.commands is not None
    cost = run_all(tool.commands(frames, output), folder)
    row: dict[str, Any] = {
        "scene": scene.name, "tool": tool.name, "variant": "", "seconds": round(cost.wall_s, 2), "exit": cost.exit,
    }  # fmt: skip
    if not output.exists():
        return row | {"failed": cost.log.strip()[-300:]}
    truth, picture = judge.load(scene / "truth.tif"), judge.load(output)
    row |= judge.score(picture, truth)
    row["ring"] = round(halo_ring.errors(picture, truth, halo_ring.scene_ring(scene), judge).ring, 4)
    if "noisy" in scene.name:
        row["flat_noise"] = round(_noise(judge.register(picture, truth)[0], truth) / _frame_noise(scene, truth), 3)
    return row


def _noise(picture: Picture, truth: Picture) -> float:
    """Median standard deviation of a picture's own detail in the blocks where the truth is flat."""
    flat = _blocks(truth).std(axis=1).max(axis=-1)
    inner = np.argsort(flat)[: max(8, int(_FLAT_SHARE * len(flat)))]
    return float(np.median(_blocks(picture - truth)[inner].std(axis=1)))


def _blocks(picture: Picture) -> Picture:
    """(blocks, pixels, channels), without the border that registration may have invented."""
    side = _FLAT_PX
    rows, columns = (n // side for n in picture.shape[:2])
    cut = picture[: rows * side, : columns * side].reshape(rows, side, columns, side, -1)[3:-3, :, 3:-3]
    return cut.transpose(0, 2, 1, 3, 4).reshape(-1, side * side, picture.shape[2])


def _frame_noise(scene: Path, truth: Picture) -> float:
    """The same of the reference frame, which lies on the truth without resampling."""
    index = json.loads((scene / "scene.json").read_text())["reference"]
    path = sorted((scene / "frames").iterdir())[index]
    frame = _develop(path)[..., ::-1] if path.suffix == ".dng" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if frame is None:
        raise OSError(f"{path} is not a picture")
    picture = frame[..., :3].astype(np.float32) / np.float32(np.iinfo(frame.dtype).max)
    return _noise(picture, truth)


def _text(results: dict[str, Any]) -> str:
    rows = []
    for row in results["scenes"]:
        best = row.get("best_peer")
        name = f"{row['scene']}: {row['tool']} {row['variant']}".removesuffix(" default").rstrip()
        score = "missing" if "missing" in row else "failed"
        if "psnr" in row:
            score = f"{row['psnr']:.2f} / {row['ssim']:.3f}"
        peer = f"{best['psnr']:.2f} / {best['ssim']:.3f} {best['name']}" if best else None
        bar = f"{row['bar']:.2f}" if best else None
        met = verdict(row["met"]) if best else None
        noise = f"{row['flat_noise']:.2f}" if "flat_noise" in row else None
        rows.append([name, score, peer, bar, met, noise, row.get("ring"), _of_peer(row), row.get("seconds")])
    head = ("scene: tool", "PSNR dB / SSIM", "best peer", "bar", "", "flat noise", "ring", "of best peer", "s")
    lines = [
        "# Brackets with known truth, 768 x 512",
        "PSNR in dB and SSIM of sRGB against the truth; pyfocus alone is its default settings. The best of six peers "
        "is quoted from the README of the brackets. The bar: that figure on easy, align and raw, 1 dB less on others. "
        "Flat noise: in texture-free places, over one frame's (lower is calmer). Ring: RMS error beside "
        "occlusion borders, and over the least of focusweave's, enfuse's and openfocus's.",
        table(head, rows),
    ]
    return "\n\n".join(lines)


def _of_peer(row: dict[str, Any]) -> str | None:
    if "ring_ratio" not in row:
        return None
    bar = f", bar {row['ring_bar']}: {verdict(row['ring_met'])}" if "ring_bar" in row else ""
    return f"{row['ring_ratio']:.2f} {row['ring_peer']}{bar}"


if __name__ == "__main__":
    main()
