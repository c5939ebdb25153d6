"""das3d evaluate: one run, several runs side by side, or the newest runs of a data set's categories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from das3d_cli import console
from das3d_cli.commands.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    AsJson,
    Cache,
    Gpus,
    Out,
    Runs,
    split_names,
)
from das3d_cli.configure import resolve
from das3d_cli.errors import Das3dError, DataError, UsageError
from das3d_cli.files import as_json as to_json
from das3d_cli.files import check_folder, on_a_line, real, write_json
from das3d_cli.report.formats import check_targets, terminal, write_tables
from das3d_cli.runs import by_category, newest_finished, using

if TYPE_CHECKING:
    from das3d_cli.evaluation import Evaluation, Outcome
    from das3d_cli.report.formats import FigureTable


def run(
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            help="Run folder or model file; repeat it to see runs side by side. (default: the newest finished run)",
            show_default=False,
        ),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            help="The newest finished run of each of these categories and of each modality; repeatable, or several"
            " with commas, or all.",
            show_default=False,
        ),
    ] = None,
    data: Cache = DEFAULT_CACHE,
    runs: Runs = DEFAULT_RUNS,
    gpus: Gpus = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures",
            help="Write the figures, and a picture and the anomaly map of every test part of one run, at the samples' size, here.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write one HTML page of one run, with figures, charts and pictures, here.",
            show_default=False,
        ),
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    settings = resolve({"hardware.gpus": gpus})
    several = bool(category) or len(models or []) > 1
    _check_call(models, category, runs, pictures, report, out or [])
    wanted, chosen = _choose(models, category, data, runs)
    from das3d_cli.evaluation import Outcome

    outcomes: list[Outcome] = []
    failed: dict[Path, Das3dError] = {}
    unwritten: list[DataError] = []
    for path in chosen:
        try:
            evaluation = _evaluate(path, data, settings.hardware.gpus, pictures)
        except Das3dError as error:
            failed[path] = error
            continue
        outcomes.append(Outcome.of(path, evaluation))
        if pictures:
            pictures = _tried(unwritten, _write_pictures, pictures, evaluation)
        if report:
            from das3d_cli.report.page import write_page

            report = _tried(unwritten, write_page, report, evaluation, str(path))
    if not outcomes:
        raise next(iter(failed.values()))
    tables, found = _report(outcomes, wanted, failed) if several else _report_of_one(outcomes[0], pictures, report)
    if pictures:
        from das3d_cli.report.gallery import RECORD

        pictures = _tried(unwritten, lambda folder: write_json(folder / RECORD, found), pictures)
    unwritten += write_tables(out or [], tables, found)
    if as_json:
        console.result(to_json(found))
    else:
        _show(tables, outcomes, several, pictures, report)
    for failure in (*failed.values(), *unwritten[:-1]):
        console.say(f"failed: {failure}")
    if failed:
        console.say(f"{len(failed)} of {len(chosen)} runs could not be evaluated; the tables show the others")
    if unwritten:
        raise unwritten[-1]
    if failed:
        raise typer.Exit(1)


def _check_call(
    models: list[Path] | None,
    category: list[str] | None,
    runs: Path,
    pictures: Path | None,
    report: Path | None,
    out: list[Path],
) -> None:
    """Tell of a mistake before the work, which may take minutes; the pictures' folder is made by that."""
    if models and category:
        raise UsageError("--run and --category: give one of them; --category picks the runs itself")
    for name, target in (("--pictures", pictures), ("--report", report)):
        if target and (category or len(models or []) > 1):
            why = "--category may pick several" if category else f"{len(models or [])} are given"
            raise UsageError(
                f"{name} {target}: shows one run, but {why}; give one, as in --run {runs / 'tire-001'} {name} {target},"
                " and call again for each further run"
            )
    if report and report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {report}: the name must end in .html")
    if report and not (pictures and real(report.parent) == real(pictures)):
        check_folder(report)
    check_targets(out, pictures)


def _tried(failed: list[DataError], write: Callable[..., None], target: Path, *arguments: object) -> Path | None:
    """Where it was written; None where it could not be: what was found took minutes, and there is more to print and to write."""
    try:
        write(target, *arguments)
    except DataError as error:
        failed.append(error)
        return None
    return target


def _show(
    tables: Sequence[FigureTable],
    outcomes: Sequence[Outcome],
    several: bool,
    pictures: Path | None,
    report: Path | None,
) -> None:
    for table in tables:
        console.show(terminal(table))
    for outcome in outcomes:
        _tell_verdicts(outcome, "" if len(outcomes) == 1 else f"{outcome.run} ({outcome.category}): ", several)
    if pictures:
        console.result(str(pictures))
    if report:
        console.result(str(report))


def _choose(
    models: list[Path] | None, category: list[str] | None, data: Path, runs: Path
) -> tuple[list[str], list[Path]]:
    """The categories that are asked for, and the runs."""
    if not category:
        return [], models or [newest_finished(runs)]
    from das3d_cli.data.cache import categories

    finished, cached = by_category(runs), categories(data)
    names = split_names(category)
    lacking = [name for name in names or cached if name not in finished]
    if names and lacking:
        raise UsageError(
            f"{runs}: no finished run of {', '.join(lacking)}; `das3d train --category {','.join(lacking)}` makes one"
        )
    for name in lacking:
        console.say(f"{name}: no finished run below {runs}; left out")
    for name in [name for name in finished if cached and not names and name not in cached]:
        console.say(f"{name}: not in the cache {data}; its runs are left out")
    wanted = names or cached or list(finished)  # without a cache, opening it says what is missing
    chosen = []
    for name in wanted:
        for modality, found in sorted(finished.get(name, {}).items()):
            chosen.append(found[-1])
            if len(found) > 1:
                console.say(
                    f"{name}: {found[-1]} is the newest of {len(found)} finished runs with --modality {modality}"
                )
    if not chosen:
        raise UsageError(f"{runs}: no finished run of {', '.join(wanted)}; `das3d train --category all` makes one")
    return wanted, chosen


def _evaluate(path: Path, data: Path, gpus: str, pictures: Path | None) -> Evaluation:
    from das3d_cli.data.cache import open_cache
    from das3d_cli.data.capture import GOOD
    from das3d_cli.detector import Detector
    from das3d_cli.evaluation import evaluate_detector, notes

    detector = Detector.load(path, gpus)
    console.say(using(path, detector.category, detector.step, detector.settings.train.steps))
    if pictures:
        from das3d_cli.report.gallery import check_gallery

        parts = open_cache(data, detector.category).samples("test")
        check_gallery(pictures, ((part.label, part.name) for part in parts))
    evaluation = evaluate_detector(detector, data)
    for note in notes(evaluation):
        console.say(f"{detector.category}: {note}")
    good = evaluation.split.labels.count(GOOD)
    if not 0 < good < len(evaluation.split.labels):
        lacking = "defective" if good else "good"
        console.say(
            f"{detector.category}: no {lacking} parts in the test split; figures that compare the two stay empty"
        )
    return evaluation


def _report_of_one(
    outcome: Outcome, pictures: Path | None, report: Path | None
) -> tuple[list[FigureTable], dict[str, Any]]:
    from das3d_cli.report.tables import run_tables

    written = {name: str(path) if path else None for name, path in (("pictures", pictures), ("report", report))}
    return run_tables(outcome), outcome.record() | written


def _report(
    outcomes: Sequence[Outcome], wanted: Sequence[str], failed: Mapping[Path, Das3dError]
) -> tuple[list[FigureTable], dict[str, Any]]:
    from das3d_cli.report import paper
    from das3d_cli.report.published import recognise
    from das3d_cli.report.tables import comparison_table, differing_settings

    records = [outcome.record() for outcome in outcomes]
    lacking = [{"run": str(path), "error": str(error)} for path, error in failed.items()]
    if not wanted:
        told = differing_settings(outcomes)
        return [comparison_table(outcomes)], {
            "runs": [record | {"settings": settings} for record, settings in zip(records, told, strict=True)],
            "failed": lacking,
        }
    _tell_unlike(outcomes)
    expected = paper.expected_categories(wanted)
    return [paper.overview(outcomes, expected), *paper.paper_tables(outcomes, expected)], {
        "dataset": recognise(wanted),
        "mean": paper.mean_figures(outcomes, expected),
        "runs": records,
        "failed": lacking,
    }


def _tell_unlike(outcomes: Sequence[Outcome]) -> None:
    """Say by which settings the runs of one row of the tables differ, as those of an experiment would."""
    from das3d_cli.report.tables import differing_settings

    for modality in dict.fromkeys(outcome.modality for outcome in outcomes):
        row = [outcome for outcome in outcomes if outcome.modality == modality]
        if keys := list(differing_settings(row)[0]):
            console.say(
                f"the runs with --modality {modality} were not trained alike: {', '.join(keys)}; --runs takes another folder"
            )


def _tell_verdicts(outcome: Outcome, whose: str, short: bool) -> None:
    from das3d_cli.data.capture import GOOD

    good = sum(verdict["label"] == GOOD for verdict in outcome.verdicts)
    defective = len(outcome.verdicts) - good
    told = [
        *([f"{outcome.missed_parts} of {defective} defective parts missed"] if defective else []),
        *([f"{len(outcome.false_alarms)} of {good} good parts rejected"] if good else []),
    ]
    console.result(on_a_line(f"{whose}at threshold {outcome.threshold:.3f}: {', '.join(told)}"))
    if short:
        return
    for kind, names in outcome.missed.items():
        if names:
            console.result(on_a_line(f"  missed {kind}: {', '.join(names)}"))
    if outcome.false_alarms:
        console.result(on_a_line(f"  rejected good: {', '.join(outcome.false_alarms)}"))


def _write_pictures(folder: Path, evaluation: Evaluation) -> None:
    from das3d_cli.report.gallery import write_gallery

    with console.progress("pictures") as bar:
        task = bar.add_task("", total=len(evaluation.split.labels), note="")
        write_gallery(folder, evaluation, advance=lambda: bar.advance(task))
