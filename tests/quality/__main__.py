"""Measure how well das3d finds defects, against a baseline and against alternatives of its own: `nox -s quality`.

Renders the data, preprocesses it, trains and evaluates, and writes results.csv and RESULTS.md beside this file.
Steps that are done already are skipped. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import data
import table
from experiments import EXPERIMENTS, PREPARED, STUDIES, cache_of
from jobs import Job, retest, run_all, write
from pictures import false_alarms

HERE = Path(__file__).parent


def main() -> int:
    args = _parser().parse_args()
    unknown = sorted({*args.experiments, *(args.pictures or [])} - {"btf", *EXPERIMENTS})
    if unknown:
        _parser().error(f"no experiment {', '.join(unknown)}; there are btf, {', '.join(EXPERIMENTS)}")
    args.work.mkdir(parents=True, exist_ok=True)
    captures, cache, results = args.work / "captures", args.work / "cache", args.work / "results"
    if args.archive and args.archive.is_file():
        data.unpack(args.archive, cache)
    elif args.archive and not args.archive.parent.is_dir():
        _parser().error(f"--archive {args.archive}: no such folder")
    data.make(captures, cache, args.categories, args.parallel)
    if args.archive and not args.archive.is_file():
        data.pack(cache, args.categories, args.archive)
    for name in PREPARED.keys() & set(args.experiments):
        if not captures.is_dir():
            _parser().error(f"{name} preprocesses the captures in its own way, and {captures} is no folder")
        data.preprocess(captures, cache_of(name, cache), args.categories, args.parallel, [PREPARED[name]])
    started = time.monotonic()
    if "btf" in args.experiments:
        _baseline(captures, cache, results, args)
    jobs = [
        Job(experiment, category, seed, args.preset)
        for seed in args.seeds
        for experiment in args.experiments
        for category in args.categories
        if experiment != "btf"
    ]
    minutes = args.minutes - (time.monotonic() - started) / 60
    left = run_all(jobs, cache, results, gpus=args.gpus, parallel=args.parallel, minutes=minutes, extra=args.set)
    if left:
        print(f"{left} trainings failed or had no time left; the same command goes on with them", file=sys.stderr)
    if args.larger:
        larger = args.work / "cache-larger"
        data.make_larger(captures, args.work / "captures-larger", larger, args.categories, args.parallel)
        retest([job for job in jobs if job.experiment not in PREPARED], larger, results, args.gpus)
    if args.pictures:
        pairs = [Job(name, category, args.seeds[0], args.preset) for category in args.categories
                 for name in args.pictures]  # fmt: skip
        false_alarms(pairs, cache, results, args.table.with_name("false_alarms.png"))
    rows = table.collect(results, args.table)
    args.table.with_name("RESULTS.md").write_text(table.markdown(rows), encoding="utf-8")
    print(args.table.with_name("RESULTS.md"))
    return 0


def _baseline(captures: Path, cache: Path, results: Path, args: argparse.Namespace) -> None:
    """Run BTF, which needs Open3D and the raw captures; categories without captures keep their rows in the table."""
    from btf import btf

    from das3d_cli.data.cache import open_cache
    from das3d_cli.data.layouts import find_entries

    for category in args.categories:
        job = Job("btf", category, 0, args.preset)
        if not (captures / category).is_dir() or job.file(results).exists():
            continue
        started = time.monotonic()
        found = btf(open_cache(cache, category), find_entries(captures, [category]).entries)
        metrics = {kind: figures._asdict() for kind, figures in found.items()}
        minutes = (time.monotonic() - started) / 60
        write(job, results, metrics, minutes, settings=[], run="")


def _parser() -> argparse.ArgumentParser:
    def names(text: str) -> list[str]:
        return text.split(",")

    known = ", ".join(EXPERIMENTS)
    titles = "; ".join(f"{study.title}: {','.join(study.experiments)}" for study in STUDIES)
    parser = argparse.ArgumentParser(
        prog="quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Experiments: btf, {known}.\nStudies: {titles}",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("quality"), help="folder for data and runs")
    parser.add_argument("--table", type=Path, default=HERE / "results.csv", help="the table that the results join")
    parser.add_argument("--archive", type=Path, help="packed caches: read if the file exists, else written")
    parser.add_argument("--categories", type=names, default=list(data.CATEGORIES), help="comma-separated")
    parser.add_argument("--experiments", type=names, default=["btf", "das3d"], help="comma-separated")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--preset", default="cpu", choices=("cpu", "default", "paper"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for all trainings")
    parser.add_argument(
        "--pictures", type=names, metavar="BEFORE,AFTER", help="draw false_alarms.png of two experiments"
    )
    parser.add_argument(
        "--larger", action="store_true", help="judge what was trained by more and other test parts as well"
    )
    parser.add_argument("--gpus", default="auto", help="as for das3d train")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training later than this")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
