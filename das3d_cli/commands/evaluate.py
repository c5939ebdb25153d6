"""das3d evaluate: one run, several runs side by side, or the newest runs of a data set's categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from das3d_cli import console
from das3d_cli.commands.chosen import called, choose, repeated
from das3d_cli.commands.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    AsJson,
    CacheFolder,
    Gpus,
    Out,
)
from das3d_cli.configure import resolve
from das3d_cli.engine.interrupt import end_on_sigterm
from das3d_cli.errors import Das3dError, DataError, UsageError
from das3d_cli.files import check_folder, on_a_line, real, write_json
from das3d_cli.report.formats import check_targets, terminal, write_tables
from das3d_cli.runs import using

if TYPE_CHECKING:
    from das3d_cli.evaluation import Evaluation, Outcome
    from das3d_cli.report.formats import FigureTable


def run(
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            readable=False,
            help="Run folder or model file; repeat the option to see runs side by side. (default: the newest finished run)",
            show_default=False,
        ),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            help="Use the newest finished run of this category, or one for each modality if there are several. Repeat the option,"
            " separate names by commas, or give all.",
            show_default=False,
        ),
    ] = None,
    data: CacheFolder = DEFAULT_CACHE,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--runs",
            readable=False,
            help="Folder that holds the run folders. With --category, repeat the option to compare several such folders, each in a row"
            f" named after its folder. (default: {DEFAULT_RUNS})",
            show_default=False,
        ),
    ] = None,
    all_seeds: Annotated[
        bool,
        typer.Option(
            "--all-seeds",
            help="For each category and modality, use the newest run and all that differ from it only in their seed; the tables then"
            " hold means and standard deviations.",
        ),
    ] = False,
    gpus: Gpus = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures",
            help="Folder for one run's figures, and for a picture and the anomaly map of every test part at the size of the samples. With"
            " --category, which must then pick one run, the figures are printed as for --run.",
            show_default=False,
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            "--maps",
            help="Folder for the anomaly map of every test part at the size of the raw images, as CATEGORY/test/LABEL/NAME.tiff, which"
            " MVTec 3D-AD's own evaluation reads. Takes one run per category.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="HTML file for one page with the figures, charts and pictures of one run.",
            show_default=False,
        ),
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    end_on_sigterm()
    settings = resolve({"hardware.gpus": gpus})
    several = bool(category and not (pictures or report)) or len(models or []) > 1
    folders = runs or [DEFAULT_RUNS]
    _check_call(models, category, folders, all_seeds, maps, pictures, report, out or [])
    wanted, chosen = choose(models, category, data, folders, all_seeds)
    if maps and (several_of := repeated(chosen)):
        raise UsageError(
            f"--maps {maps}: takes one run per category, but {several_of} has several; name one with --run"
        )
    _check_shown(pictures, report, [path for path, *_ in chosen], "are picked by --category")
    from das3d_cli.evaluation import Outcome

    outcomes: list[Outcome] = []
    failed: dict[Path, Das3dError] = {}
    unwritten: list[DataError] = []
    for path, method, _ in chosen:
        try:
            evaluation = _evaluate(path, data, settings.hardware.gpus, pictures, maps)
        except Das3dError as error:
            failed[path] = error
            continue
        outcomes.append(Outcome.of(path, evaluation, method))
        if pictures:
            pictures = _tried(unwritten, _write_pictures, pictures, evaluation)
        if maps:
            from das3d_cli.report.maps import write_maps

            maps = _tried(unwritten, write_maps, maps, evaluation)
        if report:
            from das3d_cli.report.page import write_page

            report = _tried(unwritten, write_page, report, evaluation, str(path))
    if not outcomes:
        raise next(iter(failed.values()))
    tables, found = _report(outcomes, wanted, failed) if several else _report_of_one(outcomes[0], pictures, report)
    found["maps"] = str(maps) if maps else None
    if pictures:
        from das3d_cli.report.gallery import RECORD

        pictures = _tried(unwritten, lambda folder: write_json(folder / RECORD, found, for_others=True), pictures)
    unwritten += write_tables(out or [], tables, found)
    if as_json:
        console.record(found)
    else:
        _show(tables, outcomes, several, pictures, maps, report)
    for failure in (*failed.values(), *unwritten[:-1]):
        console.say(f"failed: {failure}")
    if failed:
        console.say(f"{len(failed)} of {len(chosen)} runs could not be evaluated; the tables show the others")
    if unwritten:
        raise unwritten[-1]
    if failed:
        raise typer.Exit(1)


def _check_shown(pictures: Path | None, report: Path | None, models: list[Path], why: str) -> None:
    for name, target in (("--pictures", pictures), ("--report", report)):
        if target and len(models) > 1:
            raise UsageError(
                f"{name} {target}: shows one run, but {len(models)} {why}; give one, such as --run {models[0]} {name} {target},"
                " and call again for each further run"
            )


def _check_call(
    models: list[Path] | None,
    category: list[str] | None,
    folders: list[Path],
    all_seeds: bool,
    maps: Path | None,
    pictures: Path | None,
    report: Path | None,
    out: list[Path],
) -> None:
    """Report mistakes before the evaluation, which may take minutes and creates the folder of --pictures itself."""
    if models and category:
        raise UsageError("--run and --category: give only one of the two; --category picks the runs itself")
    if all_seeds and not category:
        raise UsageError(
            "--all-seeds: needs --category, which picks the runs; runs named with --run are averaged without this option"
        )
    if len(folders) > 1 and not category:
        raise UsageError(
            "--runs: several folders need --category, which picks runs in each; give one folder, or add --category all"
        )
    if len({real(folder) for folder in folders}) < len(folders):
        raise UsageError("--runs: a folder is named twice; give it once")
    if doubled := [name for name, count in Counter(map(called, folders)).items() if count > 1]:
        raise UsageError(
            f"--runs: two folders are called {doubled[0]}, but the rows of the tables are named after them; rename one"
        )
    if maps and len(models or []) > 1:
        raise UsageError(
            f"--maps {maps}: takes one --run at a time, but {len(models or [])} are given; call das3d once for each"
        )
    _check_shown(pictures, report, models or [], "are given")
    if report and report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {report}: the name must end in .html")
    if report and not (pictures and real(report.parent) == real(pictures)):
        check_folder(report)
    check_targets(out, pictures)


def _tried(failed: list[DataError], write: Callable[..., None], target: Path, *arguments: object) -> Path | None:
    """Write to `target` and return it; if that fails, add the error to `failed` and return None.

    The evaluation took minutes, and its other results must still be printed and written.
    """
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
    *written: Path | None,
) -> None:
    for table in tables:
        console.show(terminal(table))
    for outcome in outcomes:
        _tell_verdicts(outcome, "" if len(outcomes) == 1 else f"{outcome.run} ({outcome.category}): ", several)
    for path in filter(None, written):
        console.result(str(path))


def _evaluate(path: Path, data: Path, gpus: str, pictures: Path | None, maps: Path | None) -> Evaluation:
    from das3d_cli.data.cache import open_cache
    from das3d_cli.data.capture import GOOD
    from das3d_cli.detector import Detector
    from das3d_cli.evaluation import evaluate_detector

    detector = Detector.load(path, gpus)
    console.say(using(path, detector.category, detector.step, detector.settings.train.steps))
    if pictures or maps:
        from das3d_cli.report.gallery import check_gallery
        from das3d_cli.report.maps import check_maps

        parts = [(part.label, part.name) for part in open_cache(data, detector.category).samples("test")]
        if pictures:
            check_gallery(pictures, parts)
        if maps:
            check_maps(maps, detector.category, parts)
    evaluation = evaluate_detector(detector, data)
    for note in evaluation.notes:
        console.say(f"{detector.category}: {note}")
    good = evaluation.split.labels.count(GOOD)
    if not 0 < good < len(evaluation.split.labels):
        lacking = "defective" if good else "good"
        console.say(
            f"{detector.category}: no {lacking} parts in the test split; figures that need both good and defective parts stay empty"
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
        "means": paper.records(outcomes, expected),
        "runs": records,
        "failed": lacking,
    }


def _tell_unlike(outcomes: Sequence[Outcome]) -> None:
    """Say in which settings the runs of one table row differ, as they would if some were an experiment."""
    from das3d_cli.report.ours import ours_of

    for row in ours_of(outcomes):
        if row.differing:
            console.say(
                f"the runs in row {row.method} with --modality {row.modality} differ in their settings: {', '.join(row.differing)};"
                " use `das3d train --runs` to give an experiment's runs a folder of their own"
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
