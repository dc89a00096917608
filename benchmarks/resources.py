"""What every CUDA kernel takes: registers, shared memory, stack frame, spills; and whether it keeps to its limits.

Compiles each ``csrc/*.cu`` for two architectures with the warnings of the real build as errors, two files at once. The
numbers are ptxas's own, except shared memory: it is asked for at launch, so the host's compiler is asked for the size
of each kernel's ``Shared``. ``--update`` writes what was found to results/gpu/resources.json; a run without it fails on
a spill, a stack frame, more shared memory, or more than a few registers above the file, and on a kernel that the file
does not know. A GPU is not needed, nvcc is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
LIMITS = ROOT / "benchmarks" / "results" / "gpu" / "resources.json"
ARCHS = ("sm_80", "sm_90")
MORE_REGISTERS = 8  # above the recorded number: what another version of nvcc may take
_NVCC = (
    "-std=c++20", "-O3", f"-I{CSRC}", "-DPYFOCUS_CUDA", "-DPYFOCUS_CUDA_ARCHS=\"\"", "-Werror=all-warnings",
    "-Xptxas=-v,-warn-spills,-warn-lmem-usage", "-Xcompiler=-Wall,-Wextra,-Werror,-fPIC",
)  # fmt: skip
_HOST = ("-std=c++20", f"-I{CSRC}", "-DPYFOCUS_CUDA", "-DPYFOCUS_EMULATE", "-O0", "-w", "-xc++", "-S", "-o", "-", "-")

Kernels = dict[str, dict[str, dict[str, int]]]  # name, architecture, what: how much


class CompileError(Exception):
    """A source did not compile; the text is the compiler's."""


def main() -> int:
    """Compile, compare, print. Exit code 1 for anything over its limit."""
    options = _options()
    if shutil.which(options.nvcc) is None:
        print("No nvcc here: the compile gate and the resource report were left out.")
        return 0
    sources = [Path(s).resolve() for s in options.sources] or sorted(CSRC.glob("*.cu"))
    found: Kernels = {}
    failed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, measured in zip(sources, pool.map(lambda s: _tried(options.nvcc, s), sources), strict=True):
            if isinstance(measured, CompileError):
                failed.append(f"{source.name} does not compile:\n{measured}")
            else:
                found |= measured
    if not failed and options.update:
        _write(options.nvcc, found)
    limits = json.loads(LIMITS.read_text())["kernels"] if LIMITS.exists() else {}
    failed += over_limits(found, limits, whole=not options.sources and not failed)
    _print(found)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def measure(nvcc: str, source: Path) -> Kernels:
    """Every kernel of a source. Raises CompileError."""
    with tempfile.TemporaryDirectory() as folder:
        targets = [f"-gencode=arch={a.replace('sm', 'compute')},code={a}" for a in ARCHS]
        done = _run([nvcc, *_NVCC, *targets, "-c", str(source), "-o", str(Path(folder, "out.o"))])
    kernels: Kernels = {}
    types: dict[str, str] = {}
    for symbol, arch, numbers in ptxas_report(done.stderr):
        name, types_name = kernel_name(_run(["c++filt", symbol]).stdout.strip())
        name = f"{source.stem}: {name}"
        types[name] = types_name
        kernels.setdefault(name, {})[arch] = numbers
    shared = _shared_bytes(source, types)
    for name, archs in kernels.items():
        for numbers in archs.values():
            numbers["shared"] += shared[name]
    return kernels


def ptxas_report(text: str) -> list[tuple[str, str, dict[str, int]]]:
    """(mangled name, architecture, numbers) of each kernel in what ``ptxas -v`` says."""
    rows = []
    for block in text.split("Compiling entry function ")[1:]:
        symbol, arch = re.match(r"'(\S+)' for '(\w+)'", block).groups()  # type: ignore[union-attr]
        # A function that the kernel calls has properties of its own, and counts too.
        numbers = {
            "registers": _most(r"Used (\d+) registers", block),
            "shared": _most(r"(\d+) bytes smem", block),
            "stack": _most(r"(\d+) bytes stack frame", block),
            "spills": _most(r"(\d+) bytes spill stores", block) + _most(r"(\d+) bytes spill loads", block),
        }
        rows.append((symbol, arch, numbers))
    return rows


def kernel_name(function: str) -> tuple[str, str]:
    """Of ``void pyfocus::run_kernel<T>(...)`` the struct T: short, for people, and as C++ names it."""
    start = function.find("run_kernel<")
    if start < 0:
        return function, ""
    start += len("run_kernel<")
    depth, end = 1, start
    while depth:
        depth += {"<": 1, ">": -1}.get(function[end], 0)
        end += 1
    # nvcc names the unnamed namespace after the file and a hash of it
    full = re.sub(r"(\(anonymous namespace\)|_GLOBAL__N__\w+)::", "", function[start : end - 1]).strip()
    return full.replace("pyfocus::", ""), full


def over_limits(found: Kernels, limits: Kernels, whole: bool) -> list[str]:
    """A line for every number over its limit and every kernel without one; of a whole run also for limits left over."""
    lines = []
    for name, archs in found.items():
        for arch, now in archs.items():
            lines += [f"{name}, {arch}: {now[what]} bytes of {what}" for what in ("spills", "stack") if now[what]]
            limit = limits.get(name, {}).get(arch)
            if limit is None:
                lines.append(f"{name}, {arch}: not in {LIMITS.name}; look at it, then resources.py --update")
                continue
            for what, most in (("registers", limit["registers"] + MORE_REGISTERS), ("shared", limit["shared"])):
                if now[what] > most:
                    lines.append(f"{name}, {arch}: {what} {now[what]}, allowed {most}")
    if whole:
        lines += [f"{n}: in {LIMITS.name}, but gone; resources.py --update" for n in sorted(set(limits) - set(found))]
    return lines


def _tried(nvcc: str, source: Path) -> Kernels | CompileError:
    try:
        return measure(nvcc, source)
    except CompileError as error:
        return error


def _shared_bytes(source: Path, types: dict[str, str]) -> dict[str, int]:
    """sizeof(Shared) of each kernel struct: one array per kernel, whose size the assembly tells; empty counts 0."""
    named = {name: kind for name, kind in types.items() if kind}
    lines = ["#include <type_traits>", f'#include "{source}"', "namespace pyfocus {"]
    for i, kind in enumerate(named.values()):
        shared = f"{kind}::Shared"
        lines.append(f"char shared_{i}[1 + (std::is_empty_v<{shared}> ? 0 : sizeof({shared}))];")
    text = _run([os.environ.get("CXX", "c++"), *_HOST], "\n".join([*lines, "}\n"])).stdout if named else ""
    sizes = dict(re.findall(r"\.size\s+_ZN7pyfocus\d+shared_(\d+)E, (\d+)", text))
    return dict.fromkeys(types, 0) | {name: int(sizes[str(i)]) - 1 for i, name in enumerate(named)}


def _run(command: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        said = [
            line for line in (done.stderr or done.stdout).splitlines() if not line.startswith(("ptxas info", "    "))
        ]
        raise CompileError("\n".join(said))
    return done


def _most(pattern: str, text: str) -> int:
    return max((int(n) for n in re.findall(pattern, text)), default=0)


def _write(nvcc: str, found: Kernels) -> None:
    version = re.search(r"V([\d.]+)", _run([nvcc, "--version"]).stdout)
    facts: dict[str, Any] = {"nvcc": version.group(1) if version else "unknown", "kernels": dict(sorted(found.items()))}
    LIMITS.parent.mkdir(parents=True, exist_ok=True)
    LIMITS.write_text(json.dumps(facts, indent=1) + "\n")


def _print(found: Kernels) -> None:
    head = ("kernel", "arch", "registers", "shared", "stack", "spills")
    rows = [
        (name, arch, *(str(n[what]) for what in head[2:]))
        for name, archs in sorted(found.items())
        for arch, n in archs.items()
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", help="CUDA sources; all of csrc by default")
    parser.add_argument("--update", action="store_true", help=f"write {LIMITS.relative_to(ROOT)}")
    parser.add_argument("--nvcc", default=os.environ.get("CUDACXX", "nvcc"))
    options = parser.parse_args()
    if options.update and options.sources:
        parser.error("--update needs all sources: it rewrites the whole file")
    return options


if __name__ == "__main__":
    sys.exit(main())
