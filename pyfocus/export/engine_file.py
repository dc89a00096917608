"""What lies beside an engine: M.engine.json, which says what M.engine was built of, by what and for which cards.

An engine itself says none of it in a form that others may read, and runs with the very TensorRT that built it alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ReadError
from ..io.atomic import PathLike
from .facts import Facts, read_facts
from .flavours import FLAVOURS, Card, Flavour
from .profiles import Profile, Shape

FORMAT, VERSION = "pyfocus-engine", 1
SUFFIX = ".engine"


@dataclass(frozen=True)
class EngineFacts:
    """``model``: the ONNX file's name, ``model_sha256`` of its bytes, and its ``facts``. ``runtime``: TensorRT's
    version.

    ``card``: that a TensorRT engine was built on, and runs on alone. ``capabilities``: of the cards that a TensorRT-RTX
    engine is for, none for its default ones. ``plugin``: SHA-256 of the plugin library, empty without. ``profiles``:
    smallest, usual and largest shape of every input.
    """

    flavour: str
    runtime: str
    card: Card | None
    capabilities: tuple[str, ...]
    model: str
    model_sha256: str
    facts: Facts
    profiles: dict[str, Profile]
    plugin: str
    bytes: int
    sha256: str

    @property
    def made_by(self) -> Flavour:
        """The flavour."""
        return FLAVOURS[self.flavour]

    def largest_px(self) -> int:
        """The shorter side of the largest window that every input takes."""
        largest = [self.profiles[name][2] for name in ("frame", "frames") if name in self.profiles]
        sides = [n for shape in largest for n in shape[-2:]]
        for name, _, stride in self.facts.state:
            if stride and name in self.profiles:
                sides += [n * stride for n in self.profiles[name][2][-2:]]
        return min(sides)

    def texts(self) -> dict[str, str]:
        """All of it as texts, for people: what the model says of itself, then the engine's own."""
        values = {key: value for key, value in json.loads(self.text()).items() if key != "facts"}
        own = {f"engine.{key}": v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}
        return {**self.facts.texts(), **own}

    def text(self) -> str:
        """The JSON."""
        shapes = {name: " ".join(map(_words, profile)) for name, profile in self.profiles.items()}
        own = {**asdict(self), "facts": self.facts.texts(), "profiles": shapes}
        values = {"format": FORMAT, "version": VERSION, **own}
        return json.dumps(values, indent=1) + "\n"


def sidecar_of(engine: PathLike) -> Path:
    """M.engine.json."""
    path = Path(engine)
    return path.with_name(path.name + ".json")


def read_engine(path: PathLike) -> tuple[EngineFacts, bytes]:
    """An engine's bytes and what lies beside them, found to belong together. Raises ReadError for all else."""
    engine, sidecar = Path(path), sidecar_of(path)
    built = "pyfocus-export tensorrt and pyfocus-export rtx write both"
    if not engine.is_file():
        raise ReadError(f"{engine}: there is no such file; name an engine, or the folder of a model's engines")
    if not sidecar.is_file():
        raise ReadError(f"{engine}: {sidecar.name} is not beside it, without which nothing is known of it; {built}")
    try:
        text, data = sidecar.read_text(encoding="utf-8"), engine.read_bytes()
    except (OSError, ValueError) as error:
        raise ReadError(f"{engine}: it or {sidecar.name} cannot be read: {error}") from error
    facts = _read(sidecar, text)
    if len(data) != facts.bytes:
        what = "cut short" if len(data) < facts.bytes else "not the engine that was built"
        raise ReadError(
            f"{engine}: is {what}: {len(data)} bytes, {sidecar.name} says {facts.bytes}; copy both again, or build it"
        )
    if hash_bytes(data) != facts.sha256:
        raise ReadError(f"{engine}: is damaged, or not the engine of {sidecar.name}; copy both again, or build again")
    return facts, data


def hash_bytes(data: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(data).hexdigest()


def _read(sidecar: Path, text: str) -> EngineFacts:
    """What a sidecar says. Raises ReadError for one that is damaged or of another version."""
    try:
        values: dict[str, Any] = json.loads(text)
        kind, version = values.pop("format"), values.pop("version")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ReadError(f"{sidecar}: is damaged, or none of ours; build the engine again") from None
    if (kind, version) != (FORMAT, VERSION):
        raise ReadError(
            f"{sidecar}: is {kind} of version {version}, and {FORMAT} of {VERSION} is read here; build again"
        )
    try:
        card = values.pop("card")
        facts = read_facts(sidecar, values.pop("facts"))
        found = EngineFacts(
            facts=facts, card=Card(**card) if card else None, capabilities=tuple(values.pop("capabilities")),
            profiles={name: _profile(shapes) for name, shapes in values.pop("profiles").items()}, **values,
        )  # fmt: skip
        if found.flavour not in FLAVOURS or set(found.profiles) != set(facts.inputs):
            raise ValueError(found.flavour)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ReadError(f"{sidecar}: is damaged ({type(error).__name__}: {error}); build the engine again") from None
    return found


def _profile(shapes: Any) -> Profile:
    smallest, usual, largest = (tuple(map(int, shape.split("x"))) for shape in shapes.split())
    return smallest, usual, largest


def _words(shape: Shape) -> str:
    return "x".join(map(str, shape))
