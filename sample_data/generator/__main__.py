"""Command line of the generator: categories, numbers of captures, resolution, defects and output folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .parts.families import FAMILIES
from .scene import capture
from .writer import write_capture


@dataclass(frozen=True)
class Job:
    """One capture to make."""

    category: str
    split: str
    label: str
    index: int


def _number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _resolution(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and min(int(height), int(width)) >= 32):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, at least 32 each, got {text!r}")
    return int(height), int(width)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="generate.py",
        description="Render captures of parts on a table, MVTec 3D-AD layout. Same arguments, same files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <category>/...")
    parser.add_argument("--categories", default="all", help="comma-separated, of: " + ", ".join(FAMILIES) + "; or all")
    parser.add_argument("--defects", default="all", help="comma-separated kinds; all: those that suit the part")
    parser.add_argument("--train", type=_number, default=40, help="good parts in train")
    parser.add_argument("--validation", type=_number, default=10, help="good parts in validation")
    parser.add_argument("--test-good", type=_number, default=15, help="good parts in test")
    parser.add_argument("--per-defect", type=_number, default=4, help="test parts of each defect kind")
    parser.add_argument("--resolution", type=_resolution, default=(160, 192), help="HEIGHTxWIDTH in pixels")
    parser.add_argument("--seed", type=_number, default=0, help="another seed, other parts")
    parser.add_argument("--workers", type=_number, default=1, help="processes; the files do not depend on it")
    parser.add_argument(
        "--write-foreground", action="store_true", help="also write foreground/NNN.png, the ideal part mask"
    )
    return parser


def plan(category: str, args: argparse.Namespace) -> list[Job]:
    """Every capture of a category. Raises ValueError for a defect kind that does not suit it."""
    suited = FAMILIES[category].defects
    kinds = suited if args.defects == "all" else tuple(args.defects.split(","))
    unknown = [kind for kind in kinds if kind not in suited]
    if unknown:
        raise ValueError(f"--defects: {category} has no {', '.join(unknown)}; it has {', '.join(suited)}")
    counts = [
        ("train", "good", args.train),
        ("validation", "good", args.validation),
        ("test", "good", args.test_good),
    ]
    counts += [("test", kind, args.per_defect) for kind in kinds]
    return [Job(category, split, label, k) for split, label, count in counts for k in range(count)]


def make(job: Job, out: Path, resolution: tuple[int, int], seed: int, foreground: bool) -> None:
    """Render and write one capture."""
    made = capture(job.category, job.split, job.label, job.index, seed=seed, resolution=resolution)
    folder = out / job.category / job.split / job.label
    write_capture(folder, job.index, made, ground_truth=job.split == "test", foreground=foreground)


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    categories = list(FAMILIES) if args.categories == "all" else args.categories.split(",")
    unknown = [name for name in categories if name not in FAMILIES]
    if unknown:
        parser.error(f"--categories: no {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    try:
        jobs = [job for category in categories for job in plan(category, args)]
    except ValueError as error:
        parser.error(str(error))
    one = partial(make, out=args.out, resolution=args.resolution, seed=args.seed, foreground=args.write_foreground)
    if args.workers > 1:
        with ProcessPoolExecutor(args.workers) as pool:
            done = sum(1 for _ in pool.map(one, jobs, chunksize=4))
    else:
        done = sum(1 for _ in map(one, jobs))
    print(f"{done} captures of {', '.join(categories)} in {args.out}", file=sys.stderr)
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
