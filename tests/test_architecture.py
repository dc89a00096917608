"""The rules of the house, held by reading the source: import order, one home per third party, kernels, sizes, names."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyfocus

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pyfocus"
CSRC = ROOT / "csrc"

# A module may import those before it. A folder is one room: its files import each other as they like.
ORDER = (
    "errors", "arrays", "environment", "burst", "colour", "raw", "metrics", "io", "ahead", "staging", "affine",
    "planes", "defects", "ecc", "align", "fuse", "framestore", "laplacian", "wavelet", "register", "warp", "equalise",
    "ghosts", "bring", "develop", "simulate", "noise", "tiles", "tilework", "focus", "guided", "depthmap", "combine",
    "relief", "kept", "networks", "network_bursts", "fusers", "stacker", "stack", "slabs", "evaluate", "report", "nn",
    "export", "cli", "__main__",
)  # fmt: skip
HOMES = {
    "rawpy": ("io",), "tifffile": ("io",), "imagecodecs": ("io",), "cv2": ("io",), "rich": ("cli",),
    "torch": ("nn", "export"), "onnx": ("export",), "onnxscript": ("export",), "onnxruntime": ("export",),
    "tensorrt": ("export",), "tensorrt_rtx": ("export",),
}  # fmt: skip
FORBIDDEN_WORDS = re.compile(r"(^|_)(managers?|helpers?|utils?|common|misc)(_|$)", re.IGNORECASE)


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The module, or the folder, that a file of the package belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in python_files():
        yield path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Absolute dotted names of everything imported anywhere in the file, and the line."""
    package = ["pyfocus", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inside = node.level > 0 and not node.module
                yield (f"{module}.{alias.name}" if inside else module), node.lineno


# --- Python ------------------------------------------------------------


def test_every_module_has_its_place_in_the_order():
    rooms = {room(path) for path in python_files()} - {"__init__"}
    assert rooms <= set(ORDER), f"give {sorted(rooms - set(ORDER))} a place in ORDER"
    assert set(ORDER) <= rooms, f"ORDER names {sorted(set(ORDER) - rooms)}, which do not exist"


def test_imports_point_one_way():
    wrong = []
    for path, tree in trees():
        here = room(path)
        for name, line in imports(path, tree):
            parts = name.split(".")
            if parts[0] != "pyfocus" or len(parts) == 1 or here == "__init__":
                continue
            there = parts[1]
            if there in ORDER and there != here and ORDER.index(there) >= ORDER.index(here):
                wrong.append(f"{name_of(path)}:{line}: {here} imports {there}, which comes after it")
    assert not wrong, "\n".join(wrong)


def test_every_third_party_has_one_home():
    wrong = []
    for path, tree in trees():
        for name, line in imports(path, tree):
            top = name.split(".")[0]
            if top in HOMES and room(path) not in HOMES[top]:
                wrong.append(f"{name_of(path)}:{line}: {top} belongs in {' and '.join(HOMES[top])}")
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_prints_and_exits():
    wrong = []
    for path, tree in trees():
        if room(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "print",
                "exit",
                "quit",
                "sys.exit",
                "os._exit",
            }:
                wrong.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node.func)}")
            if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc):
                wrong.append(f"{name_of(path)}:{node.lineno}: SystemExit")
    assert not wrong, "\n".join(wrong)


def test_python_stays_small():
    wrong = []
    for path, tree in trees():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 400:
            wrong.append(f"{name_of(path)}: {lines} lines, 400 allowed")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    wrong.append(f"{name_of(path)}:{node.lineno}: {node.name} has {length} lines, 60 allowed")
    assert not wrong, "\n".join(wrong)


def test_every_file_says_what_it_is():
    for path, tree in trees():
        if path.read_text(encoding="utf-8").strip():
            assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"


def test_nothing_is_called_by_a_name_that_says_nothing():
    stems = [*python_files(), *CSRC.glob("*"), *(ROOT / "tests").glob("*.py"), *(ROOT / "examples").glob("*.py")]
    wrong = [name_of(path) for path in stems if FORBIDDEN_WORDS.search(path.stem)]
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.name)
                if FORBIDDEN_WORDS.search(words) and "common_valid" not in words:  # what frames have in common
                    wrong.append(f"{name_of(path)}:{node.lineno}: {node.name}")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_for_later():
    # spelt apart so that this file passes its own test
    later = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    for path in [*python_files(), *CSRC.glob("*.*"), *(ROOT / "tests").glob("*.py")]:
        found = later.search(path.read_text(encoding="utf-8"))
        assert not found, f"{name_of(path)}: {found.group()}"


# --- the public names --------------------------------------------------


def test_public_names_are_sorted_there_and_explained():
    names = list(pyfocus.__all__)
    assert names == sorted(names) and len(set(names)) == len(names)
    for name in names:
        thing = getattr(pyfocus, name)
        if inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), f"pyfocus.{name} has no docstring"
        if inspect.isclass(thing):
            for method, function in vars(thing).items():
                if not method.startswith("_") and callable(function):
                    assert inspect.getdoc(getattr(thing, method)), f"pyfocus.{name}.{method} has no docstring"


def test_public_names_are_the_documented_ones():
    page = ROOT / "docs" / "api.md"
    documented = set(re.findall(r"^#+ `(?:pyfocus\.)?(\w+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    documented |= set(re.findall(r"^\| `(?:pyfocus\.)?(\w+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    public = set(pyfocus.__all__) - {"__version__"}
    assert public <= documented, f"not in docs/api.md: {sorted(public - documented)}"


def test_every_error_is_in_the_one_tree():
    defined = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and re.search(r"(Error|Exception|Cancelled)$", node.name):
                bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
                if room(path) != "errors":
                    defined.append((f"{name_of(path)}:{node.lineno}: {node.name}", bases))
    from pyfocus import errors

    ours = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    private = {"UsageError", "BadBlock"}  # caught where they are raised: the command line's and the tag parser's
    wrong = [where for where, bases in defined if not bases & ours and where.split()[-1] not in private]
    assert not wrong, "\n".join(wrong)


# --- C++ ---------------------------------------------------------------

# What every op may use.
BASE_HEADERS = {
    "check", "codes", "device", "emulate", "isa", "launch", "parallel", "planes", "sample", "tensor", "upsample",
}  # fmt: skip
OVER_ALL = {"c_api"}
ABOVE = ("bindings", "stack", "tensorrt")  # folders that may use every op, too


def sources() -> list[Path]:
    kinds = ("*.h", "*.cpp", "*.cu", "*.cuh")
    folders = (CSRC, CSRC / "bindings", CSRC / "stack", CSRC / "tensorrt")
    return sorted(path for folder in folders for kind in kinds for path in folder.glob(kind))


def bare(text: str) -> str:
    """C++ without comments and strings; the lines stay where they are."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.DOTALL)
    return re.sub(r'(?<!#include )"(?:\\.|[^"\\\n])*"', '""', text)


def ops() -> set[str]:
    return {path.stem for path in CSRC.glob("*.h")} - BASE_HEADERS - OVER_ALL


def op_of(stem: str) -> str:
    """The op a file belongs to: pyramid_rows and pyramid_launch are pyramid's."""
    return max((op for op in ops() if stem == op or stem.startswith(f"{op}_")), key=lambda op: -len(op), default=stem)


def kernel_part(text: str) -> str:
    """What is compiled once per instruction set: all but the blocks under ``#if defined(PYFOCUS_LAUNCHER)``."""
    kept, depth = [], 0
    for line in text.splitlines():
        directive = line.strip()
        if depth:
            depth += directive.startswith("#if") - directive.startswith("#endif")
            kept.append("")
        elif directive.startswith("#if") and "PYFOCUS_LAUNCHER" in directive:
            depth = 1
            kept.append("")
        else:
            kept.append(line)
    return "\n".join(kept)


def kernel_files() -> list[Path]:
    """Files of the ops that hold kernels, and the headers they share."""
    kernels = [p for p in CSRC.glob("*.cpp") if re.search(r"namespace\s+(pyfocus::)?PYFOCUS_ISA\b", p.read_text())]
    return sorted([*kernels, CSRC / "sample.h"])


def test_there_are_kernels_to_look_at():
    assert {"warp.cpp", "pyramid.cpp", "demosaic.cpp", "luminance.cpp", "unpack.cpp"} <= {
        p.name for p in kernel_files()
    }
    assert {"warp", "pyramid", "demosaic", "luminance", "unpack"} <= ops()


def test_no_op_knows_another():
    wrong = []
    for path in sources():
        if path.stem in OVER_ALL or path.parent.name in ABOVE:
            continue
        for header in re.findall(r'#include "([^"]+)"', path.read_text(encoding="utf-8")):
            there = op_of(Path(header).stem)
            if there in ops() and there != op_of(path.stem):
                wrong.append(f"csrc/{path.name} includes {header}")
    assert not wrong, "\n".join(wrong)


def test_only_the_bindings_know_python():
    for path in sources():
        if path.parent.name != "bindings":
            assert not re.search(r"#include\s*[<\"](Python\.h|pybind11|numpy|torch)", path.read_text()), path.name


def test_every_kernel_is_compiled_for_every_instruction_set():
    listed = re.search(r"set\(PYFOCUS_OPS ([^)]*)\)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert listed
    kernels = {f"csrc/{path.name}" for path in kernel_files() if path.suffix == ".cpp"}
    assert set(listed.group(1).split()) == kernels


FORBIDDEN = {
    r"\bstd::": "the linker could keep the AVX copy of an inline function of the standard library",
    r"\b(new|malloc|calloc|realloc|alloca|free|delete)\b": "kernels never allocate",
    r"\bgetenv\b": "kernels never read the environment",
    r"\b(throw|try|catch)\b": "kernels cannot fail: launchers check",
    r"\bstatic\s+(?!inline|constexpr|_cast)\w+\s+\w+\s*[=;({]": "kernels keep no state",
    r"#include\s*<(?!cstdint|cstddef)": "kernels use no library",
}


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_kernels_are_plain_loops(rule):
    wrong = []
    for path in kernel_files():
        for number, line in enumerate(kernel_part(bare(path.read_text(encoding="utf-8"))).splitlines(), 1):
            if re.search(rule, line) and "static_cast" not in line:
                wrong.append(f"csrc/{path.name}:{number}: {line.strip()} ({FORBIDDEN[rule]})")
    assert not wrong, "\n".join(wrong)


def test_cpp_stays_small():
    for path in sources():
        limit = 150 if path.suffix in (".h", ".cuh") else 400
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= limit, f"{name_of(path)}: {lines} lines, {limit} allowed"


def test_every_source_opens_with_what_it_is():
    for path in sources():
        head = path.read_text(encoding="utf-8").splitlines()[0]
        folder = "stack/" if path.parent.name == "stack" else ""
        own_header = f'#include "{folder}{path.stem}.h"'  # the text is in the header then
        assert head.startswith("//") or head == own_header or op_of(path.stem) in head, f"csrc/{path.name}: {head}"
