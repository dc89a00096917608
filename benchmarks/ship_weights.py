"""The weights that the package ships, from a finished run: half precision, with the facts of how they came about.

    python benchmarks/ship_weights.py RUN --photos PHOTOS

writes pyfocus/nn/weights/focusdeep-lite.pt and copies the run's recipe, log and the photos' sources to
benchmarks/results/training/lite/. The run is one of `pyfocus train stream_lite`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from machine import machine, versions

from pyfocus.nn.checkpoint import load_model, save_model

ROOT = Path(__file__).resolve().parent.parent
LICENCE = "MIT; learned from photos under CC0, CC-BY-4.0 and in the public domain, see the model card"


def main() -> None:
    """Convert, write, copy."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("run", type=Path)
    options.add_argument("--photos", type=Path, required=True)
    options = options.parse_args()
    net, facts = load_model(options.run / "best.pt")
    size = str(net.config["size"])
    kept = ROOT / "benchmarks" / "results" / "training" / size
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("recipe.json", "log.jsonl"):
        shutil.copyfile(options.run / name, kept / name)
    recipe = json.loads((kept / "recipe.json").read_text())
    recipe["photos"] = "photos"  # a folder with what photos.json names
    (kept / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
    shutil.copyfile(options.photos / "SOURCES.json", kept / "photos.json")
    (kept / "machine.json").write_text(json.dumps({**machine(), **versions()}, indent=1) + "\n")
    facts = {**facts, "licence": LICENCE, "precision": "float16", "seed": recipe["seed"]}
    path = ROOT / "pyfocus" / "nn" / "weights" / f"focusdeep-{size}.pt"
    path.parent.mkdir(exist_ok=True)
    written = save_model(path, net.half(), facts)
    print(f"{path.relative_to(ROOT)}: {written / 1e6:.1f} MB, step {facts['step']}, {facts['psnr']:.2f} dB")


if __name__ == "__main__":
    main()
