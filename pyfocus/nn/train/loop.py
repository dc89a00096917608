"""The training loop: draw, learn, average, look, save. One loop for every recipe.

recipe = changed(RECIPES["tiny"], ["steps=100"])
outcome = train(recipe, "run")                        # run/last.pt, best.pt, log.jsonl, samples/
outcome = train(recipe, "run", resume=True)           # goes on where it was stopped or killed
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ... import __version__
from ...errors import ArgumentError, ResourceError, TrainingError, WriteError
from ...io.atomic import PathLike, atomic
from ..batch import Batch
from ..checkpoint import save_model
from .journal import LOG, Journal
from .objectives import encoding_of, mean_of_frames, objective_of, psnr, target
from .processes import check_share, device_of, half_precision, joined, mean_over, processes
from .recipes import Recipe, recipe_json
from .schedule import rate
from .sources import Share, Source, drawing_place, draws, inline_source, training_source, validation_source
from .state import LAST, RunState, read_state

BEST, RECIPE = "best.pt", "recipe.json"
EXPLODED = 100.0  # times the running mean: a loss no step is taken from
RISEN = 10.0  # times its lowest: a running mean that will not come down again
_SHOWN = 4  # bursts in a sheet of samples


@dataclass(frozen=True)
class Moment:
    """How a run stands: after ``step`` of ``steps``; steps per second, seconds left, PSNR in dB at a validation."""

    step: int
    steps: int
    loss: float
    lr: float
    rate: float
    left_s: float
    skipped: int
    psnr: float | None = None
    mean_psnr: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a call ended: "done", "minutes" (out of time) or "stopped"; the last two go on with ``resume``."""

    reason: str
    step: int
    steps: int
    loss: float
    psnr: float
    mean_psnr: float
    skipped: int
    seconds: float
    bytes: int


def train(
    recipe: Recipe,
    folder: PathLike,
    *,
    resume: bool = False,
    overwrite: bool = False,
    tell: Callable[[Moment], None] | None = None,
    stop: Callable[[], bool] | None = None,
    source: Source | None = None,
    validation: Source | None = None,
) -> Outcome:
    """Train as a recipe says into a folder, from the beginning or from the folder's last checkpoint.

    The folder gets ``recipe.json``, ``last.pt`` (to go on from), ``best.pt`` (the model of the best validation, for
    ``load_model``), ``log.jsonl``, ``samples/`` and, where tensorboard is installed, ``tensorboard/``. ``tell`` hears
    how it goes; ``stop`` is asked after every step and ends the run with a checkpoint. ``source`` and ``validation``
    replace the recipe's data. Raises ArgumentError, ReadError, ResourceError, TrainingError or WriteError; the last
    good checkpoint survives all of them.
    """
    run, place = Path(folder), device_of(recipe.device)
    with processes(place) as share:
        recipe = _settled(recipe, place)
        check_share(recipe, share)
        pack = read_state(run / LAST)[1] if resume and (run / LAST).exists() else None
        state = RunState(recipe, place)
        if pack is not None:
            state.restore(run / LAST, pack)
        source = source or inline_source(recipe, place)
        if share.rank == 0:  # the others neither judge nor write
            validation = validation or validation_source(recipe, drawing_place(recipe, place))
            _prepare(run, recipe, resume, overwrite)  # last: up to here an earlier run is as it was
        trainer = _Trainer(state, run, share, tell, stop, source, validation)
        try:
            return trainer.run()
        except RuntimeError as error:
            told = _told(error)
            if told is error:
                raise
            raise told from error
        finally:
            trainer.close()


def saved_recipe(folder: PathLike) -> Recipe | None:
    """The recipe of the run in a folder, None where there is no checkpoint. Raises ReadError."""
    path = Path(folder) / LAST
    return read_state(path)[0] if path.exists() else None


def _settled(recipe: Recipe, device: str) -> Recipe:
    """The recipe with everything decided that it left open."""
    if recipe.amp == "auto":
        recipe = replace(recipe, amp=half_precision(device))
    if recipe.epochs and recipe.data:
        size = len(training_source(recipe, "cpu"))  # type: ignore[arg-type]
        recipe = replace(recipe, steps=recipe.epochs * math.ceil(size / recipe.batch))
    return recipe


def _told(error: RuntimeError) -> Exception:
    """The error in our words where it is one of the machine's: a worker that died, memory that is not there."""
    text = str(error).splitlines()[0] if str(error) else ""
    if text.startswith("DataLoader worker"):  # torch raises it wherever the loop happens to be
        return ResourceError(
            f"train: a process that makes bursts was ended, for want of memory perhaps ({text}); resume, with "
            "workers=0 or a smaller batch if it happens again"
        )
    if "out of memory" in text or "can't allocate memory" in text:
        return ResourceError(f"train: out of memory ({text}); resume with a smaller batch or more draws")
    return error


def _prepare(run: Path, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    """The folder, with what an earlier run left taken out of the way. Raises ArgumentError or WriteError."""
    if (run / LAST).exists() and not resume and not overwrite:
        raise ArgumentError(f"train: {run} holds a run; go on with it (--resume) or begin anew (--overwrite)")
    try:
        run.mkdir(parents=True, exist_ok=True)
        stale = [*run.glob(".*.part")]  # of a process that was killed while it wrote
        if not resume:
            stale += [run / LAST, run / BEST, run / LOG, *(run / "samples").glob("*.png")]
        for path in stale:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"{run}: cannot be written: {error.strerror or error}") from error
    with atomic(run / RECIPE, overwrite=True) as file:
        file.write(recipe_json(recipe).encode())


class _Trainer:
    """One call of :func:`train`, in one process."""

    def __init__(
        self,
        state: RunState,
        folder: Path,
        share: Share,
        tell: Callable[[Moment], None] | None,
        stop: Callable[[], bool] | None,
        source: Source | None,
        validation: Source | None,
    ) -> None:
        self.state, self.recipe, self.folder, self.share = state, state.recipe, folder, share
        self.tell, self.stop = tell or (lambda moment: None), stop or (lambda: False)
        self.source, self.validation = source, validation
        self.objective = objective_of(self.recipe, state.device)
        self.begun, self.before = time.monotonic(), state.seconds
        self.ticks: deque[tuple[float, int]] = deque([(self.begun, state.step)], maxlen=50)
        self.low, self.loss, self.lr, self.bytes = math.inf, math.nan, 0.0, 0
        self.psnr = self.mean_psnr = math.nan
        self.judged: list[Batch] = []
        self.seen: Batch | None = None  # what the last step learned from
        self.journal: Journal | None = None

    def run(self) -> Outcome:
        """To the end of the recipe, of the minutes, or until told to stop."""
        recipe, state = self.recipe, self.state
        if self.share.rank == 0:
            self.journal = Journal(self.folder, state.step)
        net = joined(state.net, self.share)
        reason = "done"
        with closing(draws(recipe, self.share, state.step, self.source)) as feed:
            while state.step < recipe.steps:
                halt = self._learn(net, feed)
                last = state.step == recipe.steps
                if last or halt == "minutes" or (recipe.validate_every and state.step % recipe.validate_every == 0):
                    self._judge()
                if last or halt or state.step % recipe.save_every == 0:
                    self._save()
                if halt and not last:
                    reason = halt
                    break
        if math.isnan(self.psnr) and reason == "done":
            self._judge()  # a run that was over already
        return Outcome(
            reason, state.step, recipe.steps, state.smooth, self.psnr, self.mean_psnr, state.skipped,
            self._seconds(), self.bytes,
        )  # fmt: skip

    def close(self) -> None:
        """Let the journal finish."""
        if self.journal is not None:
            self.journal.close()

    def _learn(self, net: torch.nn.Module, feed: Generator[Batch, None, None]) -> str:
        """One step; returns why to halt after it, or nothing."""
        state, recipe = self.state, self.recipe
        self.lr = rate(recipe, state.step, state.since)
        state.set_rate(self.lr)
        state.optimiser.zero_grad(set_to_none=True)
        mine = len(self.share.draws(recipe, state.step))
        parts: dict[str, float] = {}
        total = 0.0
        for i in range(mine):
            batch = self.seen = next(feed).to(state.device)
            alone = self.share.world > 1 and i < mine - 1
            with net.no_sync() if alone else nullcontext():
                loss, scalars = self.objective.loss(net, batch)
                state.scaler.scale(loss / mine).backward()
            total += float(loss.detach()) / mine
            for name, value in scalars.items():
                parts[name] = parts.get(name, 0.0) + value / mine
        state.scaler.unscale_(state.optimiser)
        norm = float(torch.nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip or math.inf))
        late = recipe.minutes > 0 and time.monotonic() - self.begun >= 60 * recipe.minutes
        total, stopped, late_share = mean_over([total, float(self.stop()), float(late)], self.share, state.device)
        self._take(total, norm)
        if self.journal is not None and (state.step % recipe.log_every == 0 or state.step == recipe.steps):
            self._log(norm, parts)
        return "stopped" if stopped else "minutes" if late_share else ""

    def _take(self, loss: float, norm: float) -> None:
        """Take the step if it is a sound one, else count it. Raises TrainingError."""
        state = self.state
        sound = math.isfinite(loss) and math.isfinite(norm)
        sound = sound and not (math.isfinite(state.smooth) and loss > EXPLODED * state.smooth)
        if sound:
            state.scaler.step(state.optimiser)
            state.average_in()
            state.smooth = loss if math.isnan(state.smooth) else 0.98 * state.smooth + 0.02 * loss
            self.low = min(self.low, state.smooth)
            state.bad_in_a_row = 0
        else:
            state.skipped += 1
            state.bad_in_a_row += 1
        if state.scaler.is_enabled():
            state.scaler.update()
        state.step += 1
        self.loss = loss
        self.ticks.append((time.monotonic(), state.step))
        if state.bad_in_a_row >= self.recipe.bad_steps:
            self._give_up(f"{state.bad_in_a_row} steps in a row were of no use (loss {loss:.3g}, gradient {norm:.3g})")
        if state.smooth > RISEN * self.low:
            self._give_up(f"the loss has risen from {self.low:.3g} to {state.smooth:.3g}")

    def _give_up(self, why: str) -> None:
        kept = self.folder / LAST
        rest = f"{kept} is from before: resume" if kept.exists() else "begin again"
        raise TrainingError(
            f"train: at step {self.state.step}, {why}: the learning rate {self.recipe.lr:g} is too high, or the data "
            f"is damaged; {rest} with a lower one (--set lr=...)"
        )

    def _log(self, norm: float, parts: dict[str, float]) -> None:
        assert self.journal is not None
        moment = self._moment()
        self.journal.write("train", self.state.step, {
            "loss": self.loss, "loss_mean": self.state.smooth, "lr": self.lr, "gradient": norm,
            "skipped": self.state.skipped, "rate": moment.rate, "seconds": self._seconds(), **parts,
        })  # fmt: skip
        self.tell(moment)

    def _moment(self) -> Moment:
        (then, first), (now, step) = self.ticks[0], self.ticks[-1]
        speed = (step - first) / max(now - then, 1e-9)
        left = (self.recipe.steps - step) / speed if speed else math.inf
        return Moment(step, self.recipe.steps, self.state.smooth, self.lr, speed, left, self.state.skipped)

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.begun

    @torch.no_grad()
    def _judge(self) -> None:
        """Validate the running mean's network; keep it if it is the best so far. The first process does it alone."""
        if self.journal is None:
            return
        state, recipe = self.state, self.recipe
        results: list[Tensor] = []
        means: list[Tensor] = []
        rows: list[Tensor] = []
        for batch in self._judged():
            batch = batch.to(state.device)
            result, truth, mean = self.objective.picture(state.average, batch), target(batch), mean_of_frames(batch)
            results.append(psnr(result, truth))
            means.append(psnr(mean, truth))
            first = mean_of_frames(replace(batch, frames=batch.frames[:, :1]))
            rows += [torch.stack(row) for row in zip(first, mean, result.clamp(0, 1), truth, strict=True)]
        self.psnr, self.mean_psnr = float(torch.cat(results).mean()), float(torch.cat(means).mean())
        self.journal.write("validation", state.step, {"psnr": self.psnr, "mean_psnr": self.mean_psnr})
        self.journal.show(state.step, rows[:: max(1, len(rows) // _SHOWN)][:_SHOWN])
        self.tell(replace(self._moment(), psnr=self.psnr, mean_psnr=self.mean_psnr))
        if self.psnr > state.best or not (self.folder / BEST).exists():
            state.best = self.psnr
            save_model(self.folder / BEST, state.average, {
                "recipe": recipe.name, "kind": recipe.kind, "encoding": encoding_of(recipe), "step": state.step,
                "psnr": self.psnr, "mean_psnr": self.mean_psnr, "pyfocus": __version__,
            }, half=recipe.checkpoint == "weights")  # fmt: skip

    def _judged(self) -> list[Batch]:
        """The validation's bursts, drawn once."""
        if not self.judged:
            assert self.validation is not None
            each = self.recipe.batch // self.recipe.draws
            self.judged = [self.validation.draw(k, each) for k in range(self.recipe.validation)]
        return self.judged

    def _save(self) -> None:
        """The checkpoint, unless the run is in a bad stretch: what is kept must be worth going on from."""
        if self.journal is None or self.state.bad_in_a_row or not self._is_sound():
            return
        self.state.seconds = self._seconds()
        self.bytes = self.state.save(self.folder / LAST)

    @torch.no_grad()
    def _is_sound(self) -> bool:
        """Whether the last step left weights to go on from; a loss tells of the weights before its step alone."""
        if self.seen is None:
            return True
        loss = float(self.objective.loss(self.state.net, self.seen)[0])
        return math.isfinite(loss) and not loss > RISEN * self.state.smooth
