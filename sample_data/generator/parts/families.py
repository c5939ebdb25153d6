"""The part families and the set-up of their capture stations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from generator.surface import Colour, Grid, Surface

from .bagel import bagel
from .block import block
from .cap import cap
from .cookie import cookie
from .pose import Pose
from .potato import potato
from .rope import rope
from .tire import tire


@dataclass(frozen=True)
class Family:
    """A part family and its capture station.

    Attributes:
        make: draws one part.
        size: largest extent of a part, mm.
        distance: camera to table, mm.
        fill: share of the image's short side that `size` takes.
        table: colour of the table.
        exposure: gain of the colour camera.
        dropout: how easily the depth sensor loses points on this material.
        defects: kinds that suit the part.
    """

    make: Callable[[Pose, Grid, np.random.Generator], Surface]
    size: float
    distance: float
    fill: float
    table: Colour
    exposure: float
    dropout: float
    defects: tuple[str, ...]


ALL = (
    "bump",
    "chip",
    "contamination",
    "crack",
    "cut",
    "dent",
    "hole",
    "missing",
    "scratch",
    "stain",
    "thread",
)

FAMILIES: dict[str, Family] = {
    "tire": Family(
        tire, 74.0, 420.0, 0.76, (0.150, 0.155, 0.162), 1.45, 0.9,
        ALL,
    ),
    "cookie": Family(
        cookie, 68.0, 400.0, 0.76, (0.060, 0.062, 0.066), 0.95, 0.5,
        ("bump", "chip", "contamination", "crack", "cut", "dent", "hole", "stain", "thread"),
    ),
    "block": Family(
        block, 100.0, 520.0, 0.82, (0.058, 0.060, 0.058), 0.80, 0.6,
        ("bump", "chip", "contamination", "cut", "dent", "hole", "missing", "scratch", "stain", "thread"),
    ),
    "cap": Family(
        cap, 63.0, 380.0, 0.76, (0.075, 0.071, 0.065), 0.74, 0.4,
        ALL,
    ),
    "potato": Family(
        potato, 86.0, 460.0, 0.80, (0.090, 0.100, 0.115), 0.95, 0.5,
        ("bump", "chip", "contamination", "crack", "cut", "dent", "hole", "scratch", "stain", "thread"),
    ),
    "bagel": Family(
        bagel, 88.0, 470.0, 0.78, (0.110, 0.110, 0.105), 1.10, 0.5,
        ("bump", "chip", "contamination", "crack", "cut", "dent", "hole", "stain", "thread"),
    ),
    "rope": Family(
        rope, 106.0, 520.0, 0.84, (0.080, 0.082, 0.080), 1.00, 0.5,
        ("bump", "contamination", "cut", "dent", "hole", "stain", "thread"),
    ),
}  # fmt: skip
