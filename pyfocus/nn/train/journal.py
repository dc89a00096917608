"""What a run leaves to read: ``log.jsonl``, sample pictures, and both for TensorBoard where it is installed.

After a resume, what was logged past the checkpoint is taken out: those steps are run again.
"""

from __future__ import annotations

import importlib.util
import json
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import WriteError
from ...io import write_image
from ...io.atomic import atomic

LOG, SAMPLES, BOARD = "log.jsonl", "samples", "tensorboard"


class Journal:
    """The records of one run in its folder; ``resumed_at`` is the step a resumed run goes on from."""

    def __init__(self, folder: Path, resumed_at: int) -> None:
        self._folder, self._path = folder, folder / LOG
        self._board: Any = None
        self._hook: Any = None
        self._cut(resumed_at)
        if importlib.util.find_spec("tensorboard") is not None:
            self._open_board(resumed_at + 1)

    def _open_board(self, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._hook, threading.excepthook = threading.excepthook, self._hear
        try:
            with _writing(self._folder / BOARD):
                self._board = SummaryWriter(str(self._folder / BOARD), purge_step=first_step)
        except WriteError:
            self.close()
            raise

    def _cut(self, step: int) -> None:
        """Keep the lines up to a step; a line that was cut short goes too."""
        kept = []
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and entry.get("step", 0) <= step and step:
                    kept.append(line)
        with atomic(self._path, overwrite=True) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())

    def write(self, what: str, step: int, values: Mapping[str, Any]) -> None:
        """One line, and a scalar for each number. Raises WriteError."""
        plain = {key: round(v, 9) if isinstance(v, float) and math.isfinite(v) else v for key, v in values.items()}
        plain = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in plain.items()}
        with _writing(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "step": step, **plain}) + "\n")
        if self._board is not None:
            with _writing(self._folder / BOARD):
                for key, value in values.items():
                    if isinstance(value, int | float):
                        self._board.add_scalar(f"{what}/{key}", value, step)

    def show(self, step: int, pictures: list[Tensor]) -> None:
        """Rows of pictures (3, H, W), as they are looked at, beside each other: first frame, mean, result, truth.

        Raises WriteError.
        """
        sheet = torch.cat([torch.cat(list(row.unbind(0)), 2) for row in pictures], 1).clamp(0, 1)
        folder = self._folder / SAMPLES
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        write_image(folder / f"{step:07d}.png", sheet.permute(1, 2, 0).cpu().numpy(), bits=8, overwrite=True)
        if self._board is not None:
            with _writing(self._folder / BOARD):
                self._board.add_image("samples", sheet, step)

    def close(self) -> None:
        """Finish what TensorBoard has in hand; what finds no room any more is in the log all the same."""
        if self._board is not None:
            with suppress(OSError):
                self._board.close()
        if self._hook is not None:
            threading.excepthook, self._hook = self._hook, None

    def _hear(self, what: threading.ExceptHookArgs) -> None:
        """An error in TensorBoard's own thread is raised again where it is next written to: no traceback before."""
        if not issubclass(what.exc_type, OSError) or not type(what.thread).__module__.startswith("tensorboard"):
            self._hook(what)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """The system's errors as ours. Raises WriteError."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written: {error.strerror or error}; make room for it or train into another folder"
        ) from error
