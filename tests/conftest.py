"""What several test files share: the oracles' path, the big shared data, small brackets, a data set, training runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyfocus import _C

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))  # so that tests say `import reference`
_BUILT = ROOT / "build" / "tensorrt" / "libpyfocus_tensorrt.so"  # by `make test`, for where none is installed
if _BUILT.is_file() and not Path(_C.__file__).with_name("export").joinpath(_BUILT.name).is_file():
    os.environ.setdefault("PYFOCUS_TENSORRT_PLUGIN", str(_BUILT))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real stacks, raws and brackets: PYFOCUS_SHARED, or ``shared`` beside the repository."""
    folder = Path(os.environ.get("PYFOCUS_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}; set PYFOCUS_SHARED to run this test")
    return folder


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch  # most tests do without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, so that results are the same on every machine, and from seed 0."""
    import torch

    torch.manual_seed(0)
    with _one_thread():
        yield


@pytest.fixture(scope="session")
def raw_bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two raw brackets, ``cup1`` and ``key1``; never written to."""
    from raw_brackets import bracket_of

    from pyfocus.simulate import write_bracket

    folder = tmp_path_factory.mktemp("bursts")
    for seed, name in enumerate(("cup1", "key1")):
        write_bracket(bracket_of(seed), folder / name)
    return folder


@pytest.fixture(scope="session")
def raw_set(raw_bursts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of them, all to learn from; never written to."""
    from pyfocus.nn import data

    folder = tmp_path_factory.mktemp("built") / "set"
    with _one_thread():
        data.build_dataset(raw_bursts, folder, data.Recipe("rggb"), reference="middle", shares=data.Shares(0, 0))
    return folder


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run of eight steps, never stopped; never written to."""
    from training_runs import go

    folder = tmp_path_factory.mktemp("whole") / "run"
    with _one_thread():
        go(folder)
    return folder


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of simulated bursts; never written to."""
    from training_runs import PLAIN

    from pyfocus.nn.train import RECIPES, changed, train

    folder = tmp_path_factory.mktemp("plain") / "run"
    with _one_thread():
        train(changed(RECIPES["tiny"], PLAIN), folder)
    return folder


@pytest.fixture(scope="session")
def shipped_exports(tmp_path_factory) -> Any:
    """The shipped network's graphs, traced once for all tests; see ``export_cases.Translated``."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from export_cases import Translated

    from pyfocus.nn.checkpoint import load_model
    from pyfocus.nn.fusers import SHIPPED, WEIGHTS

    with _one_thread():
        return Translated(load_model(WEIGHTS / SHIPPED["focusdeep"])[0], tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="session")
def exported_lite(shipped_exports) -> Any:
    """A function: the folder of the shipped network exported in a variant and precision."""

    def files(variant: str, precision: str) -> Path:
        with _one_thread():
            return shipped_exports.files(variant, precision)

    return files


@pytest.fixture(scope="session")
def small_bracket() -> Any:
    """Five still frames (160, 200, 3) float32 in [0, 1] of a textured two-plane scene: near on the left half.

    Frame 0 is sharp at the far plane, frame 4 at the near one. Attributes: ``frames`` linear light (5, H, W, 3),
    ``truth`` (H, W, 3), ``near`` (H, W) bool.
    """
    return TwoPlanes(160, 200)


class TwoPlanes:
    """A textured scene of two planes, each blurred by its distance from the frame's focus."""

    def __init__(self, height: int, width: int, count: int = 5, seed: int = 3) -> None:
        random = np.random.default_rng(seed)
        coarse = np.kron(random.random((height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))[:height, :width]
        self.truth = (0.1 + 0.35 * random.random((height, width, 3)) + 0.35 * coarse).astype(np.float32)
        self.near = np.broadcast_to(np.arange(width) < width // 2, (height, width))
        frames = []
        for k in range(count):
            far, near = _blur(self.truth, 1.2 * k), _blur(self.truth, 1.2 * (count - 1 - k))
            frames.append(np.where(self.near[..., None], near, far))
        self.frames = np.stack(frames).astype(np.float32)

    def planes(self) -> np.ndarray:
        """(N, 3, H, W) float32, C order."""
        return np.ascontiguousarray(self.frames.transpose(0, 3, 1, 2))


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    if sigma == 0:
        return image
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (reach, reach)
        wide = np.pad(image, pad, mode="reflect")
        size = image.shape[axis]
        image = sum(w * np.take(wide, range(k, k + size), axis=axis) for k, w in enumerate(kernel))
    return image
