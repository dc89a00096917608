"""Focus brackets to learn from, made where the training runs: scenes, a lens with occlusion, a sensor, all seeded.

sim = Simulation("photos/", size=128, frames=(3, 8), seed=0)
batch = sim.draw(index=0, count=8)  # a Batch; the same index gives the same batch again

pictures ─ scene: layers of light, coverage and depth ─ lens: one view per focus ─ sensor: frames ─→ Batch
"""

from __future__ import annotations

from .settings import SimulationSettings
from .simulation import Simulation

__all__ = ["Simulation", "SimulationSettings"]
