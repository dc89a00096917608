"""Whether a built wheel may be given away: ``python tests/wheel.py [--cuda] WHEEL``.

It must be small enough for PyPI, carry a manylinux tag, hold no grafted library, need nothing of the machine but the C
and C++ runtimes (no driver, no CUDA runtime), and have machine code for every architecture that it says it has, and
PTX of the newest. The architectures are read from the fat binaries themselves (no CUDA tool needed).
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import zipfile
from io import BytesIO
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

MOST_BYTES = 100_000_000  # PyPI's limit for a file
RUNTIME = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
RUNTIME |= {"ld-linux-x86-64.so.2"}
_CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this head, bytes that follow it
_ENTRY = struct.Struct("<HHIQ")  # kind, version, bytes of its head, bytes of the (compressed) image
_MAGIC = 0xBA55ED50
_KINDS = {1: "compute_", 2: "sm_"}  # PTX and cubin


def main() -> int:
    """Print what is in the wheel and what is wrong with it. Exit code 1 for the latter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--cuda", action="store_true", help="without CUDA in it, it is wrong")
    options = parser.parse_args()
    wrong, size = [], options.wheel.stat().st_size
    if size > MOST_BYTES:
        wrong.append(f"{size / 1e6:.1f} MB, {MOST_BYTES / 1e6:.0f} allowed")
    if "manylinux" not in options.wheel.name:
        wrong.append("no manylinux tag; run auditwheel repair")
    with zipfile.ZipFile(options.wheel) as archive:
        names = archive.namelist()
        modules = [n for n in names if ".so" in Path(n).name]
        plugin = "pyfocus/export/libpyfocus_tensorrt.so"
        others = [n for n in modules if n != plugin]
        if [n for n in others if not n.startswith("pyfocus/_C.")] or len(others) != 1:
            wrong.append(f"pyfocus/_C and {plugin} are the only binaries that belong in it, got {modules}")
        if options.cuda and plugin not in modules:
            wrong.append(f"{plugin} is not in it")
        strange = {n.split("/")[0] for n in names if not re.match(r"pyfocus/|pyfocus_stack-[^/]+\.dist-info/", n)}
        if strange:
            wrong.append(f"files that do not belong in it: {sorted(strange)}")
        binary = archive.read(next(n for n in modules if n.startswith("pyfocus/_C.")))
        elves = [ELFFile(BytesIO(archive.read(n))) for n in modules]
    needed, said = set[str]().union(*map(libraries, elves)), claim(binary)
    there = [images for elf in elves for images in fat_binaries(elf)]
    if needed - RUNTIME:
        wrong.append(f"needs {sorted(needed - RUNTIME)}, which not every machine has")
    if options.cuda and not said:
        wrong.append("no CUDA in it")
    wrong += [
        f"a fat binary has {sorted(images)}, the module says {sorted(said)}" for images in there if images != said
    ]
    print(f"{options.wheel.name}: {size / 1e6:.2f} MB, the module {len(binary) / 1e6:.2f} MB")
    print(f"needs {', '.join(sorted(needed))}")
    print(f"{len(there)} fat binaries of {' '.join(sorted(said, key=_number))}" if said else "without CUDA")
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


def libraries(elf: ELFFile) -> set[str]:
    """The shared libraries that the module asks for."""
    section = elf.get_section_by_name(".dynamic")
    assert isinstance(section, DynamicSection)
    return {tag.needed for tag in section.iter_tags() if tag.entry.d_tag == "DT_NEEDED"}


def claim(binary: bytes) -> set[str]:
    """What ``_C.device_archs()`` says: a text in the module."""
    found = re.search(rb"((?:sm_\d+ )+compute_\d+)\0", binary)
    return set(found.group(1).decode().split()) if found else set()


def fat_binaries(elf: ELFFile) -> list[set[str]]:
    """The images of each CUDA source: ``sm_90`` for machine code, ``compute_90`` for PTX."""
    section = elf.get_section_by_name(".nv_fatbin")
    data = section.data() if section else b""
    found, at = [], 0
    while (at := data.find(struct.pack("<I", _MAGIC), at)) >= 0:
        _, _, head, size = _CONTAINER.unpack_from(data, at)
        images, entry, end = set(), at + head, at + head + size
        while entry < end:
            kind, _, entry_head, entry_size = _ENTRY.unpack_from(data, entry)
            images.add(f"{_KINDS.get(kind, 'unknown_')}{struct.unpack_from('<I', data, entry + 28)[0]}")
            entry += entry_head + entry_size
        found.append(images)
        at = end
    return found


def _number(arch: str) -> tuple[bool, int]:
    return arch.startswith("compute"), int(arch.split("_")[1])


if __name__ == "__main__":
    sys.exit(main())
