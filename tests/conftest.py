"""Shared fixtures: analytic parts on a tilted table, single or as a small MVTec 3D-AD data set."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from das3d_cli.data.capture import RawCapture

HEIGHT, WIDTH, FOCAL = 96, 120, 384.0
TABLE_M, PART_M, DOME_M, RADIUS_M, HOLE_M = 0.40, 0.020, 0.008, 0.034, 0.014
Shape = Literal["disc", "ring"]
Defect = Literal["", "bump", "stain"]


@dataclass(frozen=True)
class Part:
    """A rendered part with its ground truth: the pixels that show it, and the defective ones among them."""

    capture: RawCapture
    foreground: NDArray[np.bool_]
    ground_truth: NDArray[np.bool_]


def render(
    shape: Shape = "disc", *, seed: int = 0, tilt_deg: float = 6.0, missing: float = 0.02, defect: Defect = ""
) -> Part:
    """A domed part 20 mm high, seen from 0.4 m over a tilted table; its steep sides are missing."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x, y = (columns - WIDTH / 2) / FOCAL, (rows - HEIGHT / 2) / FOCAL
    rays = np.stack([x, y, np.ones_like(x)], axis=2)
    tilt, turn = np.radians(tilt_deg), rng.uniform(0, 2 * np.pi)
    normal = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), -np.cos(tilt)])
    foot = np.array([*rng.uniform(-0.004, 0.004, 2), TABLE_M])

    def hit(height: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where each ray reaches a height over the table, and how far that is from the part's axis."""
        points = rays * ((foot @ normal + height) / (rays @ normal))[..., None]
        return points, np.linalg.norm(points - foot - height[..., None] * normal, axis=2)

    inner = HOLE_M if shape == "ring" else 0.0
    crest = (inner + RADIUS_M) / 2 if shape == "ring" else 0.0
    table, table_radius = hit(np.zeros_like(x))
    height = np.full_like(x, PART_M)
    for _ in range(8):  # converges fast, as the rays are nearly upright
        top, radius = hit(height)
        height = PART_M - DOME_M * np.minimum((radius - crest) / (RADIUS_M - crest), 1) ** 2
    foreground = (inner <= radius) & (radius <= RADIUS_M)
    sides = (inner <= table_radius) & (table_radius <= RADIUS_M) & ~foreground
    spot = np.hypot(top[..., 0] - foot[0] - 0.024, top[..., 1] - foot[1]) < 0.006
    truth = foreground & spot & bool(defect)
    if defect == "bump":
        top = np.where(truth[..., None], hit(height + 0.004)[0], top)

    xyz = np.where(foreground[..., None], top, table) * (1 + rng.normal(0, 2e-4, (HEIGHT, WIDTH, 1)))
    xyz[sides | (rng.random((HEIGHT, WIDTH)) < missing)] = np.nan
    rgb = np.where(foreground[..., None], (70, 60, 50), (190, 195, 200)) + rng.normal(0, 4, xyz.shape)
    if defect == "stain":
        rgb[truth] = (150, 30, 30)
    return Part(RawCapture(rgb.clip(0, 255).astype(np.uint8), xyz.astype(np.float32)), foreground, truth)


def write(folder: Path, name: str, part: Part) -> None:
    """Write a part's files as <folder>/{rgb,xyz,gt}/<name>; missing points are zeros, as in MVTec 3D-AD."""
    for kind in ("rgb", "xyz", "gt"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"rgb/{name}.png"), part.capture.rgb[..., ::-1])
    cv2.imwrite(str(folder / f"gt/{name}.png"), part.ground_truth.astype(np.uint8) * 255)
    tifffile.imwrite(folder / f"xyz/{name}.tiff", np.nan_to_num(part.capture.xyz), photometric="rgb")


@pytest.fixture(scope="session")
def forked() -> Callable[..., BaseProcess]:
    """Function that starts another in its own process, forked from one that has already imported torch."""
    context = multiprocessing.get_context("forkserver")
    # The optimiser imports dynamo.
    context.set_forkserver_preload(["das3d_cli.engine.training", "torch._dynamo", "pytest"])

    def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return start


@pytest.fixture(scope="session")
def part() -> Callable[..., Part]:
    """Factory of parts with their truth; see `render` for its arguments."""
    return render


@pytest.fixture(scope="session")
def capture() -> Callable[..., RawCapture]:
    """Factory of raw captures; see `render` for its arguments."""
    return lambda *args, **options: render(*args, **options).capture


@pytest.fixture(scope="session")
def write_part() -> Callable[[Path, str, Part], None]:
    """Function that writes a part's three files; see `write`."""
    return write


@pytest.fixture(scope="session")
def shared_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of rings ("tire") and discs ("cookie"), 9 captures each; read-only.

    Per category: train/good 4, validation/good 2, test/good 1, test/bump 1, test/stain 1.
    """
    root = tmp_path_factory.mktemp("shared") / "mvtec3d"
    plan: list[tuple[str, Defect, int]] = [
        ("train/good", "", 4), ("validation/good", "", 2), ("test/good", "", 1),
        ("test/bump", "bump", 1), ("test/stain", "stain", 1),
    ]  # fmt: skip
    shapes: dict[str, Shape] = {"tire": "ring", "cookie": "disc"}
    for category, shape in shapes.items():
        seed = 0
        for place, defect, count in plan:
            for index in range(count):
                write(root / category / place, f"{index:03d}", render(shape, seed=seed, defect=defect))
                seed += 1
    return root


@pytest.fixture
def dataset(shared_dataset: Path, tmp_path: Path) -> Path:
    """A copy of `shared_dataset` that a test may change."""
    return Path(shutil.copytree(shared_dataset, tmp_path / "mvtec3d"))
