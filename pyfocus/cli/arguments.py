"""The words of the command line: options, their values, and what is wrong with them, in one line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..environment import MOST_THREADS
from ..evaluate import FORMATS, PROTOCOLS, SPLITS
from ..fusers import FUSERS, NETWORKS, names_fuser
from ..warp import INTERPOLATIONS

MOTIONS = ("translation", "similarity", "affine", "homography")
REFERENCES = ("auto", "first", "middle", "last")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class UsageError(Exception):
    """Options that do not go together, or a value that no option takes; exit code 2."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parse_memory(text: str) -> int:
    """Bytes of ``500MB``, ``2GB``, ``1.5GiB`` or a plain number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?B?)\s*", text, re.IGNORECASE)
    unit = match[2].upper() if match else "?"
    if match and unit and not unit.endswith("B"):
        unit += "B"
    size = int(float(match[1]) * _UNITS[unit]) if match and unit in _UNITS else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"must be a size such as 500MB, 2GB or 1.5GiB, got {text!r}")
    return size


def parse_reference(text: str) -> str | int:
    """``auto``, ``first``, ``middle``, ``last`` or the number of a frame, counted from 0."""
    if text.isascii() and text.isdigit():
        return int(text)
    if text not in REFERENCES:
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(REFERENCES)} or a frame's number counted from 0, got {text!r}"
        )
    return text


def parse_device(text: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda or cuda:N, got {text!r}")
    return text


def parse_threads(text: str) -> int:
    """A number of threads, 0 for all processors."""
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_THREADS):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 (all processors) to {MOST_THREADS}, got {text!r}"
        )
    return int(text)


def parse_quality(text: str) -> int:
    """JPEG quality, 1 to 100."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 100, got {text!r}")
    return int(text)


def parse_fuser(text: str) -> str:
    """A fuser's name, a model's file (.pt, .onnx, .engine) or the folder of an exported model."""
    if not names_fuser(text):
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join((*FUSERS, *NETWORKS))}, a model's file (.pt, .onnx, .engine) or the folder of "
            f"an exported one, got {text!r}"
        )
    return text


def parse_noise(text: str) -> tuple[float, float]:
    """``SHOT,READ``: two numbers of a variance SHOT x + READ."""
    try:
        shot, read = (float(part) for part in text.split(","))
    except ValueError:
        shot = read = -1.0
    if not (0 <= shot < 1 and 0 <= read < 1):
        raise argparse.ArgumentTypeError(
            f"must be SHOT,READ of a variance SHOT x + READ for x in [0, 1], such as 1e-3,1e-6, got {text!r}"
        )
    return shot, read


def parse_count(text: str) -> int:
    """A whole number, 1 or more."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def parse_border(text: str) -> int:
    """Pixels, 0 or more."""
    return 0 if text == "0" else parse_count(text)


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="pyfocus",
        description="Focus stacking straight from the sensor data.",
        epilog="exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but more than a quarter of the frames was left "
        "out, 130 stopped",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"pyfocus {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    _stack(commands)
    _simulate(commands)
    _noise(commands)
    _evaluate(commands)
    _dataset(commands)
    _train(commands)
    info = commands.add_parser("info", help="versions, instruction set, threads", allow_abbrev=False)
    info.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return top


def _talk(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what is said, and how the machine is used")
    group.add_argument("--json", action="store_true", help="the result as one JSON object on standard output")
    loud = group.add_mutually_exclusive_group()
    loud.add_argument("-v", "--verbose", action="store_true", help="also say what was decided, and why")
    loud.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors")
    group.add_argument(
        "--threads",
        type=parse_threads,
        metavar="N",
        help="threads to use (default: PYFOCUS_THREADS, else all processors)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace files that exist already")


def _stack(commands: Any) -> None:
    command: Parser = commands.add_parser(
        "stack",
        help="fuse a focus bracket into one sharp picture",
        description="Fuse a focus bracket into one sharp picture.",
        epilog="example: pyfocus stack IMG_*.CR3 -o sharp.tif --depth depth.png",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("files", nargs="+", metavar="FILES", help="frames: camera raws, TIFF, PNG, JPEG, WebP, folders or patterns")
    add(
        "-o",
        "--output",
        action="append",
        type=Path,
        required=True,
        metavar="OUT",
        help=".tif, .png, .jpg or .dng; may be repeated",
    )
    add(
        "--fuser",
        type=parse_fuser,
        default="auto",
        metavar="WHICH",
        help="auto (the default), depthmap, laplacian, wavelet, average, focusdeep (a network), or a model's file",
    )
    add("--noise", type=parse_noise, metavar="SHOT,READ", help="what a network is told (default: measured)")
    add(
        "--domain",
        choices=("raw", "rgb"),
        help="where camera raws are fused: rgb demosaics each frame first (the default), raw fuses mosaics and "
        "develops once (the default when a .dng is asked for)",
    )
    add("--order", choices=("name", "exif", "as-given"), default="name", help="focus order (default: %(default)s)")
    add("--bits", type=int, choices=(8, 16), help="of TIFF and PNG (default: 16)")
    add("--quality", type=parse_quality, default=95, metavar="N", help="of JPEG, 1 to 100 (default: %(default)s)")
    add(
        "--memory",
        type=parse_memory,
        metavar="SIZE",
        help="not to exceed, such as 2GB; what is left holds frames",
    )
    add(
        "--device",
        type=parse_device,
        default="cpu",
        metavar="WHERE",
        help="cpu (the default), cuda, cuda:N for the Nth card, or auto: a card if there is one",
    )
    add("--gpu-memory", type=parse_memory, metavar="SIZE", help="of the card, not to exceed, such as 4GB")
    add(
        "--resume",
        action="store_true",
        help="keep a network's finished work beside the first output, and go on from it if there is some",
    )
    _more(command)


def _more(command: argparse.ArgumentParser) -> None:
    """Groups of options that have files of their own, which know UsageError from here."""
    from .choosing import add_choosing
    from .repairing import add_repairing
    from .slabbing import add_slabbing
    from .surfaces import add_surfaces

    for add in (add_choosing, add_slabbing, add_repairing, add_surfaces, _align, _talk):
        add(command)


def _align(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("how frames are brought together").add_argument
    add("--motion", choices=MOTIONS, default="similarity", help="what may differ between frames (default: %(default)s)")
    add(
        "--reference",
        type=parse_reference,
        default="auto",
        metavar="WHICH",
        help="auto (the frame that the others are nearest to), first, middle, last or a number from 0",
    )
    add("--no-align", dest="align", action="store_false", help="take the frames as they lie")
    add("--interpolation", choices=INTERPOLATIONS, default="lanczos3", help="default: %(default)s")
    add("--no-equalise", dest="equalise", action="store_false", help="keep the frames' differences in brightness")
    add(
        "--ghosts",
        choices=("on", "off"),
        default="on",
        help="on (the default): leave out what up to three frames in a row show and their neighbours do not",
    )
    add("--no-crop", dest="crop", action="store_false", help="keep borders that not every frame saw")
    add("--save-transforms", type=Path, metavar="FILE", help="write the alignment as JSON")
    add("--transforms", type=Path, metavar="FILE", help="use an alignment that was saved")


def _simulate(commands: Any) -> None:
    command: Parser = commands.add_parser(
        "simulate",
        help="make a focus bracket with known truth from a sharp picture",
        description="Make a focus bracket with known truth from sharp pictures; several get a folder each.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="a picture, or the word 'procedural' for the scene that is built in")
    add(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for frames/, truth.tif, depth.png, scene.json",
    )
    add("--frames", type=int, default=12, metavar="N", help="default: %(default)s")
    add("--raw", action="store_true", help="Bayer DNG frames instead of TIFF")
    add("--seed", type=int, default=0, metavar="N", help="of everything random (default: %(default)s)")
    add("--size", type=int, metavar="PX", help="shrink the picture to this longest side")
    _optics(command)
    _talk(command)


def _train(commands: Any) -> None:
    command: Parser = commands.add_parser(
        "train",
        help="train a network from a recipe",
        description="Train a network from a recipe; needs torch. Ctrl-C finishes the step and keeps a checkpoint.",
        epilog="recipes: rgb, raw, raw_noise, unet_rgb, unet_raw (as published), stream_lite, stream_base, tiny; "
        "example: pyfocus train stream_lite -o run --set photos=photos/ --set steps=20000",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("recipe", metavar="RECIPE", help="its name, or the recipe.json of a run")
    add("-o", "--output", type=Path, required=True, metavar="RUN", help="folder for checkpoints, model, log, samples")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe; may be repeated")
    add("--resume", action="store_true", help="go on from the folder's last checkpoint, or begin if it has none")
    _talk(command)


def _optics(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("scene, lens and sensor").add_argument
    add("--iso", type=float, metavar="S", help="sensor noise, from 0 (clean) to 1 (very noisy); without it none")
    add(
        "--breathing",
        type=float,
        default=0.02,
        metavar="F",
        help="growth from first to last frame (default: %(default)s)",
    )
    add("--jitter", type=float, default=1.0, metavar="PX", help="random shift per frame (default: %(default)s)")
    add("--rotation", type=float, default=0.0, metavar="DEG", help="random turn per frame (default: %(default)s)")
    add("--flicker", type=float, default=0.0, metavar="F", help="largest change of exposure (default: %(default)s)")
    add("--ghost", type=int, default=0, metavar="N", help="frames that a beetle walks through (default: %(default)s)")
    add(
        "--blur",
        type=float,
        default=8.0,
        metavar="PX",
        help="blur radius from nearest to farthest (default: %(default)s)",
    )
    add(
        "--depth",
        default="synthetic",
        metavar="MAP",
        help="a grey picture, bright is near, or 'synthetic' (the default)",
    )


def _evaluate(commands: Any) -> None:
    command: Parser = commands.add_parser(
        "evaluate",
        help="judge fusers by brackets with known truth",
        description="Stack every scene of a folder with every fuser, and tell how near each comes to the truth.",
        epilog="example: pyfocus evaluate laplacian average --data brackets --border 4 -o table.md",
        allow_abbrev=False,
    )
    add = command.add_argument
    add(
        "fusers",
        nargs="+",
        metavar="FUSER",
        help="auto, depthmap, laplacian, wavelet, average, focusdeep, a model's file, or the paper's baselines: "
        "laplace, wavelets",
    )
    add("--data", type=Path, required=True, metavar="DIR", help="a scene, a folder of them at any depth, or a data set")
    add("--split", choices=SPLITS, help="of a data set (default: test)")
    add(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default="paper",
        help="paper: 8-bit sRGB as it lies (the default); score: registered on the truth, gains fitted, 6 %% cut off",
    )
    add("--border", type=parse_border, default=0, metavar="PX", help="also without this border, as a further column")
    add("--paper", action="store_true", help="add the rows of the paper's Table 3, as published on its data set LSFD")
    add("--format", choices=FORMATS, help="of the table (default: by the output's name, else text)")
    add("-o", "--output", type=Path, metavar="FILE", help="write the table there")
    add("--pictures", type=Path, metavar="DIR", help="write the worst tiles there: result, truth, difference x 8")
    add("--worst", type=parse_count, metavar="N", help="how many tiles per fuser (default: 8)")
    add(
        "--device",
        type=parse_device,
        default="cpu",
        metavar="WHERE",
        help="cpu (the default), cuda, cuda:N for the Nth card, or auto: a card if there is one",
    )
    _talk(command)


def _dataset(commands: Any) -> None:
    from .datasets import add_dataset  # which knows UsageError from here

    add_dataset(commands, MOTIONS, REFERENCES, _talk)


def _noise(commands: Any) -> None:
    command: Parser = commands.add_parser(
        "noise",
        help="measure a camera's noise from its own frames",
        description="Measure shot and read noise from the flat places of frames that were taken alike.",
        epilog="example: pyfocus noise IMG_*.CR3",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("files", nargs="+", metavar="RAW", help="camera raws or pictures of one camera at one ISO, folders, patterns")
    add("--domain", choices=("raw", "rgb"), default="raw", help="rgb: of developed raws (default: %(default)s)")
    add("--json", action="store_true", help="the result as one JSON object on standard output")
    add("-q", "--quiet", action="store_true", help="only warnings and errors")
