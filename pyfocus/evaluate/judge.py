"""Every fuser on every scene: stacked as users stack it, then compared with the truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import metrics
from ..arrays import arrays_of
from ..errors import PyfocusError
from ..fuse import Fuser
from ..fusers import FuserName, resolve_fuser
from ..register import Progress
from ..stack import stack
from ..stacker import Stacked
from .baselines import BASELINES
from .pictures import Worst, worst_tiles
from .protocols import PROTOCOLS, Compared, Protocol
from .scenes import Scene

STAGE = "evaluate"


@dataclass(frozen=True)
class Score:
    """How near one fuser came to one scene's truth.

    ``psnr`` in dB, infinite for equal pictures; ``inner_psnr`` and ``inner_ssim`` without the border, None when none
    was asked for; ``seconds`` from files to picture; ``size`` (h, w) of the part compared; ``frames`` of the bracket,
    and the names of those left out.
    """

    fuser: str
    scene: str
    psnr: float
    ssim: float
    inner_psnr: float | None
    inner_ssim: float | None
    seconds: float
    size: tuple[int, int]
    frames: int
    left_out: tuple[str, ...] = ()


def check_fusers(fusers: Sequence[str], device: str = "cpu") -> None:
    """That each is a baseline's name or what :func:`pyfocus.stack` takes; raises as that does."""
    arrays_of(device)
    for name in fusers:
        _resolve(name, device=device)


def evaluate(
    fusers: Sequence[str],
    scenes: Sequence[Scene],
    *,
    protocol: Protocol = "paper",
    border: int = 0,
    worst: int = 0,
    device: str = "cpu",
    threads: int = 0,
    progress: Progress | None = None,
) -> tuple[list[Score], list[Worst]]:
    """A score per fuser and scene, and each fuser's ``worst`` tiles over all scenes, the worst first.

    ``fusers`` as :func:`pyfocus.stack` takes them: names, or paths of models; and "laplace" and "wavelets", the paper's
    baselines. ``border``: px of every side of the part
    compared that ``inner_psnr`` and ``inner_ssim`` leave out. ``progress(stage, done, total)`` is called from this
    thread and may raise to stop. Raises what reading, stacking and the protocol raise, naming the scene.
    """
    tell = progress or (lambda stage, done, total: None)
    scores: list[Score] = []
    tiles: list[Worst] = []
    for fuser in fusers:
        kept: list[Worst] = []
        for scene in scenes:
            tell(STAGE, len(scores), len(fusers) * len(scenes))
            try:
                score, found = _judge(fuser, scene, protocol, border, worst, device, threads)
            except PyfocusError as error:
                raise _named(error, scene) from error
            scores.append(score)
            kept = sorted([*kept, *found], key=lambda tile: -tile.error)[:worst]
        tiles += kept
    tell(STAGE, len(scores), len(scores))
    return scores, tiles


def _judge(
    fuser: str, scene: Scene, protocol: Protocol, border: int, worst: int, device: str, threads: int
) -> tuple[Score, list[Worst]]:
    truth = scene.truth_picture()
    chosen = _resolve(fuser, threads=threads, device=device)  # before the clock starts: a user reads weights once
    started = time.perf_counter()
    stacked = _stack(chosen, scene, device, threads)
    stacked.image()
    seconds = time.perf_counter() - started
    size = stacked.registration.size if stacked.registration else scene.burst()[0].size
    compared = PROTOCOLS[protocol](stacked, truth, size)
    inner = _figures(compared, border) if border else (None, None)
    psnr, ssim = _figures(compared, 0)
    score = Score(
        fuser=fuser,
        scene=scene.name,
        psnr=psnr,
        ssim=ssim,
        inner_psnr=inner[0],
        inner_ssim=inner[1],
        seconds=seconds,
        size=(compared.truth.shape[0], compared.truth.shape[1]),
        frames=len(stacked.names),
        left_out=tuple(stacked.left_out),
    )
    return score, worst_tiles(compared, fuser, scene.name, worst) if worst else []


def _resolve(name: str, threads: int = 0, device: str = "cpu") -> FuserName | Fuser:
    """One of the paper's baselines by its name, or what the pipeline makes of it."""
    return BASELINES[name](threads) if name in BASELINES else resolve_fuser(name, threads=threads, device=device)


def _figures(compared: Compared, border: int) -> tuple[float, float]:
    how: dict[str, Any] = {"border": border, "where": compared.where}
    return (
        metrics.psnr(compared.result, compared.truth, **how),
        metrics.ssim(compared.result, compared.truth, **how),
    )


def _stack(fuser: FuserName | Fuser, scene: Scene, device: str, threads: int) -> Stacked:
    """The default pipeline, but for the reference, which is the truth's, and for maps, which are not judged."""
    return stack(
        scene.burst(),
        fuser=fuser,
        domain=getattr(fuser, "domain", None) or "rgb",
        reference=scene.reference,
        transforms=scene.registration(),
        depth=False,
        device=device,
        threads=threads,
    )


def _named(error: PyfocusError, scene: Scene) -> PyfocusError:
    """The error with the scene before its text, unless it names a file of the scene already."""
    text = str(error)
    return error if str(scene.folder) in text else type(error)(f"{scene.folder}: {text}")
