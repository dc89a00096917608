"""Which shapes an engine takes: every input's smallest, usual and largest, from the size of a tile in pixels.

Maps of the state have fewer pixels than the frame, other inputs none: the file's facts say which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ArgumentError
from ..tiles import Size
from . import burst_fuser, stream_fuser
from .facts import Facts

Shape = tuple[int, ...]
Profile = tuple[Shape, Shape, Shape]  # smallest, usual, largest
LARGEST_PX = 1024  # of a window: a tile with its halos
PER_PIXEL = {"frame": 3, "valid": 1}  # channels of what has a value per pixel of the frame
PER_FRAME = {"index": (), "noise": (2,), "white_balance": (3,)}
CHANNELS = {"rgb": 3, "rggb": 4, "mosaic": 1}  # of a burst's frames, by kind


@dataclass(frozen=True)
class Sizes:
    """Heights and widths of the windows that an engine takes, and how many of them at once, at most.

    None: one step of the network, a tile of ours with its halos and 1024 x 1024, as far as the other two allow; of a
    file with one size, that. Engines are tuned for ``usual`` and for ``batch``.
    """

    smallest: Size | None = None
    usual: Size | None = None
    largest: Size | None = None
    batch: int = 1


def profiles_of(facts: Facts, sizes: Sizes) -> dict[str, Profile]:
    """Shapes of every input of a file, in the file's order. Raises ArgumentError for sizes that it cannot take."""
    if sizes.batch < 1:
        raise ArgumentError(f"engine: batch must be 1 or more, got {sizes.batch}")
    smallest, usual, largest = _windows(facts, sizes)
    three = [(1, smallest), (sizes.batch, usual), (sizes.batch, largest)]

    def profile(name: str) -> Profile:
        least, most_often, most = (_shape(facts, name, batch, size) for batch, size in three)
        return least, most_often, most

    return {name: profile(name) for name in facts.inputs}


def _windows(facts: Facts, sizes: Sizes) -> tuple[Size, Size, Size]:
    """Smallest, usual and largest, with what was left open filled in."""
    step = facts.step_px
    given = {"min": sizes.smallest, "opt": sizes.usual, "max": sizes.largest}
    for name, size in given.items():
        if size is None:
            continue
        if facts.tile and tuple(size) != facts.tile:
            raise ArgumentError(
                f"engine: {name} shapes must be {_words(facts.tile)}, the one size that this file takes, got "
                f"{_words(size)}; leave it out, or export without --tile"
            )
        if any(n < step or n % step for n in size):
            raise ArgumentError(
                f"engine: {name} shapes must be multiples of {step} px for {facts.network}, got {_words(size)}"
            )
    if facts.tile:
        height, width = facts.tile
        return (height, width), (height, width), (height, width)
    smallest = sizes.smallest or _each(min, (step, step), sizes.usual, sizes.largest)
    largest = sizes.largest or _each(max, (_down(LARGEST_PX, step),) * 2, sizes.usual, smallest)
    window = _down((burst_fuser.TILE_PX if facts.part == "burst" else stream_fuser.TILE_PX) + 2 * facts.halo_px, step)
    usual = sizes.usual or _each(min, _each(max, (window, window), smallest), largest)
    for name, low, high in (("min", smallest, usual), ("opt", usual, largest)):
        if any(a > b for a, b in zip(low, high, strict=True)):
            after = "opt" if name == "min" else "max"
            raise ArgumentError(
                f"engine: {name} shapes must be no larger than {after} shapes, got {_words(low)} and {_words(high)}"
            )
    return smallest, usual, largest


def _each(choose: Callable[[list[int]], int], first: Size, *others: Size | None) -> Size:
    """The smaller, or the larger, of heights and of widths."""
    known = [first, *(size for size in others if size)]
    return choose([height for height, _ in known]), choose([width for _, width in known])


def _shape(facts: Facts, name: str, batch: int, size: Size) -> Shape:
    """The shape of an input for windows of a size. Raises ArgumentError for a name that nothing is known of."""
    height, width = size
    for key, channels, stride in facts.state:
        if key == name:
            return (batch, channels, height // stride, width // stride) if stride else (batch, channels, 1, 1)
    if name in PER_PIXEL:
        return batch, PER_PIXEL[name], height, width
    if name in PER_FRAME:
        return batch, *PER_FRAME[name]
    if name == "frames":
        return batch, facts.frames, CHANNELS[facts.kind], height, width
    raise ArgumentError(f"engine: the file has an input {name!r} whose shape is not known; export the checkpoint again")


def _down(px: int, step: int) -> int:
    return max(step, px // step * step)


def _words(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
