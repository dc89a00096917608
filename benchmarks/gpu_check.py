"""Everything that only a card can show, in one command: ``make gpu-check``. No network, under nine minutes.

Builds the package for this card alone into a folder of its own, runs every test marked ``cuda``, has compute-sanitizer
watch each kernel once, and measures the kernels, deformable convolution and a whole burst, each beside the bytes it
must move and the speed of a copy. Every part is a process of its own with a time limit: one that fails loses nothing
but itself. One JSON comes of it, results/gpu/<device>.json, and exit code 1 when a part failed.

``--emulated SITE`` runs the same on the emulated device (see ``make test``), where times mean nothing; ``--quick``
takes small sizes. Both write to build/gpu/results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as tree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import RESULTS, ROOT, commit, machine, table

WORK = ROOT / "build" / "gpu"
GPU = ROOT / "benchmarks" / "gpu"
DEADLINE_S = 520
Found = dict[str, Any]
Part = Callable[["Check"], Found]
_FACTS = """
import json, sys
from importlib import metadata
from pyfocus import _C
import pyfocus
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return None
names = ("numpy", "torch", "torchvision", "pytest", "hypothesis", "rawpy", "tifffile", "imagecodecs", "cmake", "ninja",
    "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")
print(json.dumps({"where": pyfocus.__file__, "count": _C.device_count(), "reason": _C.device_reason(),
    "device": _C.device_facts(0) if _C.device_count() else None, "archs": _C.device_archs(),
    "cuda": _C.device_versions(), "python": sys.version.split()[0], "packages": {n: version(n) for n in names}}))
"""


class Stop(Exception):
    """A part could not do its work; the text says why."""


class Check:
    """Where the package lies, how Python is started there, and how much time is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.quick, self.emulated = options.quick or bool(options.emulated), bool(options.emulated)
        self.site = Path(options.emulated).absolute() if options.emulated else WORK / "site"
        self.run_folder = WORK / "run"  # without a pyfocus in it: Python looks where it is started
        self.started = time.monotonic()
        self.log = ""
        shutil.rmtree(self.run_folder, ignore_errors=True)
        self.run_folder.mkdir(parents=True)

    def python(self) -> list[str]:
        """-S: an editable install of the package must not win over the site."""
        if self.emulated:
            return [str(ROOT / "tests" / "emulated"), os.path.relpath(self.site, self.run_folder), sys.executable]
        return [sys.executable, "-S"]

    def run(self, command: list[str], limit_s: float, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run to the end, or to the limit. Output and errors come together. Raises Stop past the limit."""
        limit_s = min(limit_s, DEADLINE_S - (time.monotonic() - self.started))
        if limit_s < 5:
            raise Stop("no time left")
        paths = [str(self.site), *(p for p in sys.path[1:] if p)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **environment}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        try:
            done = subprocess.run(
                command, cwd=self.run_folder, env=env, timeout=limit_s, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            said = error.stdout or b""
            self.log = (said.decode(errors="replace") if isinstance(said, bytes) else said)[-3000:]
            raise Stop(f"not done after {limit_s:.0f} s") from None
        self.log = done.stdout[-3000:]
        return done


def main() -> int:
    """Run the parts, write the JSON, print the table."""
    options = _options()
    check = Check(options)
    results: Found = {
        "benchmark": "gpu_check", "date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": machine(),
        "quick": check.quick, "emulated": check.emulated, "parts": {}, "operations": [], "skipped": [], "errors": [],
    }  # fmt: skip
    for name, part in PARTS.items():
        if options.parts and name not in options.parts and name not in ("build", "facts"):
            continue
        _do(check, name, part, results)
        if name in ("build", "facts") and results["parts"][name]["state"] == "failed":
            break  # without a package there is nothing to look at
    results["seconds"] = round(time.monotonic() - check.started, 1)
    device = (results.get("device") or {}).get("name")
    folder = options.results or (RESULTS / "gpu" if device and not check.quick else WORK / "results")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (re.sub(r"[^a-z0-9]+", "-", (device or "no device").lower()).strip("-") + ".json")
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(_text(results))
    print(f"Results: {path}")
    return 1 if results["errors"] else 0


def build(check: Check) -> Found:
    """The package with CUDA for this card alone, as pip installs it from the tree, into build/gpu/site."""
    if check.emulated:
        return {"skipped": "the emulated package is there already"}
    arch = _architecture()
    shutil.rmtree(check.site, ignore_errors=True)
    settings = {"build-dir": str(WORK / "build"), "cmake.define.PYFOCUS_CUDA": "ON"}
    settings["cmake.define.PYFOCUS_CUDA_ARCHS"] = arch
    words = [f"--config-settings={key}={value}" for key, value in settings.items()]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    done = check.run([*pip, "--no-build-isolation", "--target", str(check.site), *words, str(ROOT)], 300)
    if done.returncode:
        raise Stop("the build failed")
    return {"archs": f"sm_{arch}"}


def facts(check: Check) -> Found:
    """The device, the versions, and that the package is the one just built. Raises Stop without a device."""
    done = check.run([*check.python(), "-c", _FACTS], 60)
    if done.returncode:
        raise Stop("the package does not import")
    found: Found = json.loads(done.stdout.strip().splitlines()[-1])
    where = found.pop("where")
    if not Path(where).is_relative_to(check.site):
        raise Stop(f"another package was imported: {where}")
    if not found["count"]:
        raise Stop(f"no device: {found['reason']}")
    versions = {"python": found["python"], **found["packages"]}
    versions |= dict(zip(("cuda runtime", "cuda of the driver"), found["cuda"], strict=True))
    versions["nvcc"] = (re.findall(r"V([\d.]+)", _said("nvcc", "--version")) or [None])[-1]
    query = "--query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    versions["nvidia-smi"] = _said("nvidia-smi", query, "--format=csv,noheader").strip() or None
    return {"device": found["device"], "archs": found["archs"], "versions": versions}


def tests(check: Check) -> Found:
    """Every test marked cuda. A file that needs a package which is not there is listed, not counted as failed."""
    files = [str(f) for f in sorted((ROOT / "tests").glob("test_*.py")) if "mark.cuda" in f.read_text()]
    report = check.run_folder / "tests.xml"
    start = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    pytest = ["-q", "-m", "cuda", "--continue-on-collection-errors", f"--junitxml={report}", "--rootdir", str(ROOT)]
    words = [*check.python(), "-c", start, *pytest, "-c", str(ROOT / "pyproject.toml"), *files]
    done = check.run(words, 150, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    if "No module named 'pytest'" in done.stdout:
        return {"skipped": "pytest is not installed"}
    if not report.exists():
        raise Stop("pytest ended without a report")
    counts: Found = {"passed": 0, "skipped_tests": [], "failed": []}
    for case in tree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        child = next((c for c in case if c.tag in ("failure", "error", "skipped")), None)
        if child is None:
            counts["passed"] += 1
            continue
        text = f"{child.get('message')}\n{child.text or ''}"
        absent = re.search(r"No module named '[\w.]+'", text)
        if child.tag == "skipped" or (absent and child.tag == "error"):
            counts["skipped_tests"].append(f"{name}: {absent.group() if absent else child.get('message')}")
        else:
            counts["failed"].append(f"{name}: {(child.get('message') or '')[:300]}")
    if counts["failed"]:
        counts["error"] = f"{len(counts['failed'])} tests failed"
    return counts


def small(check: Check) -> Found:
    """Every kernel once on tiny arrays, watched by nobody (on the emulated device: by AddressSanitizer)."""
    return _script(check, "small_cases", 60)


def memcheck(check: Check) -> Found:
    """The same under compute-sanitizer: accesses out of bounds, leaks of errors."""
    return _sanitized(check, "memcheck")


def racecheck(check: Check) -> Found:
    """The same: threads that write and read shared memory without a barrier between."""
    return _sanitized(check, "racecheck")


def ops(check: Check) -> Found:
    """Each kernel on a large frame."""
    return _script(check, "ops", 120)


def burst(check: Check) -> Found:
    """A whole burst through the pipeline."""
    return _script(check, "burst", 120)


def deform_conv(check: Check) -> Found:
    """Deformable convolution beside torchvision's."""
    return _script(check, "deform_conv", 100)


def networks(check: Check) -> Found:
    """Every network: time, peak memory, and a plain convolution beside it."""
    return _script(check, "networks", 120)


def exported(check: Check) -> Found:
    """The shipped network in torch, torch.compile, ONNX Runtime, TensorRT and TensorRT-RTX, as far as they are here."""
    return _script(check, "exported", 240)


PARTS: dict[str, Part] = {
    part.__name__: part
    for part in (build, facts, small, ops, burst, deform_conv, networks, tests, memcheck, racecheck, exported)
}


def _do(check: Check, name: str, part: Part, results: Found) -> None:
    """One part: its state, seconds and, when it failed, the end of what it said."""
    print(f"== {name}", flush=True)
    started, check.log = time.monotonic(), ""
    try:
        found = part(check)
        error = found.pop("error", None)
    except Stop as stop:
        found, error = {}, str(stop)
    why = found.pop("skipped", None)
    state = "failed" if error else "skipped" if isinstance(why, str) else "done"
    entry: Found = {"state": state, "seconds": round(time.monotonic() - started, 1)}
    if isinstance(why, str):
        results["skipped"].append({"what": name, "why": why})
    elif why:
        results["skipped"] += why
    if error:
        results["errors"].append(f"{name}: {error}")
        entry["log"] = check.log
    for operation in found.pop("operations", []):
        results["operations"].append({"part": name, **operation} if "ms" in operation else operation)
    for key in ("device", "versions", "archs"):
        if key in found and name == "facts":
            results[key] = found.pop(key)
    results["parts"][name] = {**entry, **found}
    print(
        f"   {state}, {entry['seconds']} s" + (f": {error or why}" if error or state == "skipped" else ""), flush=True
    )


def _script(check: Check, name: str, limit_s: float, before: list[str] | None = None) -> Found:
    """A script of benchmarks/gpu: what it wrote, also when it broke off."""
    out = check.run_folder / f"{name}.json"
    out.unlink(missing_ok=True)
    words = [*(before or []), *check.python(), str(GPU / f"{name}.py"), "--out", str(out)]
    done = check.run([*words, *(["--quick"] if check.quick else [])], limit_s)
    if not out.exists():
        raise Stop(f"{name}.py ended with {done.returncode} and wrote nothing")
    found: Found = json.loads(out.read_text())
    errors = found.pop("errors")
    if errors:
        found["error"] = errors[0].strip().splitlines()[-1]
    elif done.returncode:
        found["error"] = f"{name}.py ended with {done.returncode}"
    return found


def _sanitized(check: Check, tool: str) -> Found:
    if check.emulated:
        return {"skipped": "no compute-sanitizer for the emulated device; AddressSanitizer watches it"}
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None:
        return {"skipped": "compute-sanitizer is not installed"}
    found = _script(check, "small_cases", 110, [program, "--tool", tool, "--error-exitcode", "9"])
    found["calls"] = len(found.pop("operations"))
    summary = re.findall(r"=+ (?:ERROR|RACECHECK) SUMMARY: .*", check.log)
    found["summary"] = summary[-1].lstrip("= ") if summary else None
    if summary is not None and not summary and "error" not in found:
        found["error"] = f"{tool} said nothing at its end"
    return found


def _architecture() -> str:
    """The compute capability of this machine's card without its dot, from nvidia-smi, or else from torch."""
    said = _said("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    if not re.match(r"\d+\.\d", said):
        said = _said(sys.executable, "-c", "import torch; print('%d.%d' % torch.cuda.get_device_capability())")
    found = re.match(r"(\d+)\.(\d+)", said)
    if found is None:
        raise Stop("neither nvidia-smi nor torch sees a CUDA device")
    return found.group(1) + found.group(2)


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _text(results: Found) -> str:
    """Parts, timings and what was left out, for people."""
    parts = [(name, p["state"], f"{p['seconds']:.1f}") for name, p in results["parts"].items()]
    rows = []
    for r in results["operations"]:
        if "ms" not in r:
            continue
        share = r.get("of_copy", r.get("of_upload"))
        kind = "copy" if "of_copy" in r else "upload"
        rows.append((
            r["name"], f"{r['ms']:.3f}", f"{r['bytes'] / 1e6:.1f}", r["gb_s"], f"{100 * share:.0f} % of {kind}",
            r.get("goal"), {True: "met", False: "missed"}.get(r.get("met")),
        ))  # fmt: skip
    copy = results["parts"].get("ops", {}).get("copy_gb_s")
    lines = [f"# {(results.get('device') or {}).get('name', 'no device')}, commit {results['commit']}"]
    lines += [table(("part", "state", "s"), parts)]
    lines += [f"A copy on the device moves {copy} GB/s, counting both ways."] if copy else []
    lines += [table(("operation", "ms", "MB", "GB/s", "share", "goal", ""), rows)] if rows else []
    runtimes = results["parts"].get("exported", {}).get("exported", [])
    rows = [(r["name"], r["ms"], r["ms_per_megapixel"], r["first_s"], r.get("build_s")) for r in runtimes]
    lines += [table(("a step in", "ms", "ms/MP", "first, s", "built, s"), rows)] if rows else []
    lines += [f"left out: {s['what']}: {s['why']}" for s in results["skipped"]]
    lines += [f"failed: {error}" for error in results["errors"]]
    return "\n\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default, build and facts always")
    add("--emulated", metavar="SITE", help="the package of the emulated device")
    add("--quick", action="store_true", help="small sizes; results go to build/gpu/results")
    add("--results", type=Path, metavar="FOLDER", help="where the JSON goes")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
