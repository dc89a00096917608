"""``make gpu-check`` on the emulated device: what a card's owner runs once must not fail for its own faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pyfocus
from pyfocus import _C

pytestmark = pytest.mark.cuda
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(_C.device_archs() != "host", reason="a real device runs the real check")
def test_every_part_runs_on_the_emulated_device(tmp_path):
    site = Path(pyfocus.__file__).parents[1]
    parts = ["small", "ops", "burst", "deform_conv", "memcheck"]
    words = [*parts, "--emulated", str(site), "--quick", "--results", str(tmp_path)]
    env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "PYTHONMALLOC")}
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "benchmarks" / "gpu_check.py"), *words],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    assert path.name == "the-host-emulating-a-device.json" and found["errors"] == []
    states = {name: part["state"] for name, part in found["parts"].items()}
    assert states == dict.fromkeys(["facts", "small", "ops", "burst", "deform_conv"], "done") | {
        "build": "skipped", "memcheck": "skipped",
    }  # fmt: skip
    measured = {row["name"]: row for row in found["operations"] if "ms" in row}
    for name in ("warp lanczos3", "pyramid fold", "ecc step", "burst of 3", "deform_conv forward, float16", "fold of"):
        rows = [row for key, row in measured.items() if key.startswith(name)]
        assert rows and all(row["ms"] > 0 and row["bytes"] > 0 for row in rows), name
    whole, spilled = (r for name, r in measured.items() if "MP, rgb" in name)
    assert spilled["name"] == whole["name"] + ", accumulators in host" and spilled["equal"]
    assert whole["device_bytes"] - spilled["device_bytes"] == 20 * 96 * 128
    assert found["device"]["name"] in done.stdout and "left out: memcheck" in done.stdout
