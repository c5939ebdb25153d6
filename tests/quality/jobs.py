"""Train and evaluate one job, or many in parallel until the time is up."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments import EXPERIMENTS, cache_of, larger


@dataclass(frozen=True)
class Job:
    """One row of the results: an experiment on a category with a seed, at a preset's sizes."""

    experiment: str
    category: str
    seed: int
    preset: str

    def file(self, results: Path) -> Path:
        return results / self.preset / self.experiment / f"{self.category}-{self.seed}.json"


def run_all(
    jobs: list[Job], cache: Path, results: Path, *, gpus: str, parallel: int, minutes: float, extra: list[str]
) -> int:
    """Run the jobs that have no result yet, in order; returns how many failed or were left when the time was up.

    Args:
        extra: settings for all of them, which override their own.
        parallel: trainings at a time. They share the machine's cores, or its GPU.
        minutes: no job starts later than this.
    """
    open_jobs = [job for job in jobs if not job.file(results).exists()]
    deadline = time.monotonic() + 60 * minutes
    left = 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, mp_context=spawn, initializer=_begin_worker, initargs=(parallel,)) as pool:
        running = {pool.submit(run, job, cache, results, gpus, deadline, extra): job for job in open_jobs}
        for done in as_completed(running):
            job = running[done]
            if error := done.exception():  # the other jobs' results still count
                print(f"{job.experiment} {job.category} {job.seed} failed: {error}", file=sys.stderr, flush=True)
                left += 1
                continue
            outcome = done.result()
            left += outcome is None
            if outcome:
                print(f"{job.experiment} {job.category} {job.seed}: image AUROC {outcome['all']['image_auroc']:.3f},"
                      f" AUPRO {outcome['all']['aupro_30']:.3f}", flush=True)  # fmt: skip
    return left


def run(
    job: Job, cache_root: Path, results: Path, gpus: str, deadline: float, extra: list[str]
) -> dict[str, Any] | None:
    """Train, evaluate, write the result; returns the metrics, or None if the deadline has passed."""
    if time.monotonic() > deadline:
        return None
    from das3d_cli import device as devices
    from das3d_cli.configure import resolve
    from das3d_cli.data.cache import open_cache
    from das3d_cli.detector import Detector
    from das3d_cli.engine import training
    from das3d_cli.evaluation import evaluate_detector

    assignments = [*EXPERIMENTS[job.experiment], *extra]
    settings = resolve({"seed": job.seed}, assignments, environment={}, preset=job.preset)
    started = time.monotonic()
    cache_root = cache_of(job.experiment, cache_root)
    trainer = training.start(
        settings, open_cache(cache_root, job.category), results.with_name("runs"), devices.choose(gpus)
    )
    training.finish(trainer, lambda step, values: None)
    minutes = (time.monotonic() - started) / 60
    evaluation = evaluate_detector(Detector.load(trainer.run, gpus), cache_root)
    metrics = {kind: figures._asdict() for kind, figures in evaluation.metrics.items()}
    write(job, results, metrics, minutes, settings=assignments, run=trainer.run.name)
    return metrics


def retest(jobs: list[Job], cache: Path, results: Path, gpus: str) -> None:
    """Evaluate the runs of finished jobs on another cache, as experiments called NAME-larger; skip those done already."""
    from das3d_cli.detector import Detector
    from das3d_cli.evaluation import evaluate_detector

    for job in jobs:
        again = replace(job, experiment=larger(job.experiment)[0])
        if again.file(results).exists() or not job.file(results).exists():
            continue
        record = json.loads(job.file(results).read_text(encoding="utf-8"))
        evaluation = evaluate_detector(Detector.load(results.with_name("runs") / record["run"], gpus), cache)
        metrics = {kind: figures._asdict() for kind, figures in evaluation.metrics.items()}
        write(again, results, metrics, record["minutes"], settings=record["settings"], run=record["run"])


def write(
    job: Job, results: Path, metrics: dict[str, dict[str, Any]], minutes: float, settings: list[str], run: str
) -> None:
    """Save a job's outcome; a job counts as done if its file exists."""
    record = {**asdict(job), "settings": settings, "run": run, "minutes": minutes, "metrics": metrics}
    file = job.file(results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _begin_worker(parallel: int) -> None:
    """Limit this process to its share of threads, and end it when its parent ends."""
    import torch

    from das3d_cli.engine.interrupt import end_with_parent

    end_with_parent()
    torch.set_num_threads(max(1, torch.get_num_threads() // parallel))
