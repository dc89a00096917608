"""Another program as a fuser: the aligned frames go to it as files, and the picture that it writes is the result."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np

from ...affine import Rect
from ...colour import decode_lut, encode_u16, srgb_to_linear
from ...errors import ArgumentError, BurstError, ReadError
from ...fuse import Fused, Mask
from ...io import read_image, write_image
from .store import Planes


class CommandFuser:
    """Runs ``command`` on the frames of a burst in ``finish``.

    ``command`` is split into words as a shell would, but no shell runs it. The word ``{inputs}`` becomes the frames'
    files in focus order; ``{output}`` in any word is the file to write, a TIFF. Both must be there. The frames are
    16-bit TIFFs, white-balanced camera RGB, divided by ``most`` (the largest gain, so that nothing clips), with the
    sRGB curve, cut to ``rect`` (y0, x0, y1, x1); what comes back is read the same way. They lie in ``folder``, which is
    removed at the end. Raises ArgumentError for a command that lacks a word, BurstError when it fails.
    """

    def __init__(self, command: str, folder: Path, rect: Rect, most: float) -> None:
        self._words = command_words(command)
        self._folder, self._most = folder, np.float32(most)
        self._size = (rect[2] - rect[0], rect[3] - rect[1])
        self._part = np.s_[:, rect[0] : rect[2], rect[1] : rect[3]]
        self._files: dict[float, Path] = {}

    def push(self, planes: Planes, valid: Mask | None = None, *, index: float | None = None) -> None:
        """Write a frame for the program."""
        place = float(len(self._files)) if index is None else index
        self._folder.mkdir(exist_ok=True)
        picture = encode_u16(planes[self._part] / self._most).transpose(1, 2, 0)
        self._files[place] = write_image(self._folder / f"frame_{int(place):04d}.tif", picture, bits=16)

    def preview(self) -> Planes:
        """Nothing before the program has run."""
        return np.zeros((3, 1, 1), np.float32)

    def finish(self) -> Fused:
        """Run the program and read what it wrote."""
        output = self._folder / "output.tif"
        try:
            _run(self._words, [self._files[place] for place in sorted(self._files)], output)
            return Fused(self._read(output))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, output: Path) -> Planes:
        name = self._words[0]
        try:
            frame = read_image(output)
        except ReadError as error:
            raise BurstError(f"{name}: ended well, but wrote no picture to {{output}} that can be read") from error
        if frame.data.ndim != 3 or frame.size != self._size:
            raise BurstError(
                f"{name}: its picture must be of the frames' size, {self._size[1]} x {self._size[0]} px in colour, is "
                f"{frame.size[1]} x {frame.size[0]} px{' in grey' if frame.data.ndim == 2 else ''}; "
                "switch its alignment and cropping off"
            )
        data = frame.data
        linear = srgb_to_linear(data) if data.dtype == np.float32 else decode_lut(data.dtype)[data]
        return np.ascontiguousarray(linear.transpose(2, 0, 1) * self._most, np.float32)


def command_words(command: str) -> list[str]:
    """The words of a command. Raises ArgumentError unless it names its inputs and its output."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ArgumentError(f"truth command: {command!r} cannot be split into words: {error}") from error
    if len(words) < 2 or words.count("{inputs}") != 1 or not any("{output}" in word for word in words):
        raise ArgumentError(
            "truth command: must be a program with the word {inputs} and, in any word, {output}, "
            f"such as 'prog {{inputs}} -o {{output}}', got {command!r}"
        )
    return words


def _run(words: list[str], inputs: list[Path], output: Path) -> None:
    arguments: list[str] = []
    for word in words:
        arguments += [str(path) for path in inputs] if word == "{inputs}" else [word.replace("{output}", str(output))]
    try:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise BurstError(f"{words[0]}: cannot be run: {error.strerror or error}; is it installed?") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        raise BurstError(f"{words[0]}: failed with {how}: {said[-1].strip() if said else 'it said nothing'}")
