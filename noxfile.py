"""Everything that a developer runs; `nox -l` lists it. Newcomers install and try das3d with the first two sessions."""

from __future__ import annotations

import atexit
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
DEMO_PARTS = (("hole", "000"), ("dent", "001"), ("stain", "002"), ("good", "003"))
PROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str) -> None:
    """Install the project in editable mode, with the tested versions of its dependencies."""
    needs = nox.project.dependency_groups(PROJECT, *groups) if groups else []
    session.install("-c", "constraints.txt", "-e", ".", *needs)


@nox.session
def demo(session: nox.Session) -> None:
    """Preprocess, preview, train, evaluate and predict on sample_data/: at most 10 minutes on 2 CPU cores."""
    install(session)
    folder = ROOT / "demo"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    session.chdir(folder)
    session.run(
        "das3d", "preprocess", str(ROOT / "sample_data" / "mvtec3d"), "out", "--category", "tire", "--size", "128"
    )
    session.run("das3d", "synth-preview", "--out", "preview")
    session.run("das3d", "train", "--category", "tire", "--preset", "cpu", "--gpus", "cpu", "--steps", "2000")
    session.run("das3d", "evaluate", "--pictures", "evaluation")
    for label, name in DEMO_PARTS:
        part = ROOT / "sample_data" / "mvtec3d" / "tire" / "test" / label
        xyz, rgb = part / "xyz" / f"{name}.tiff", part / "rgb" / f"{name}.png"
        session.run("das3d", "predict", str(xyz), str(rgb), "--heatmap", f"{label}-{name}.png")
    session.log("the preview, the run, the evaluation and the heat maps are in the folder named last")
    atexit.register(print, folder)  # after nox's own last line


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests in two single-threaded processes: at most 10 minutes on 2 CPU cores. `-- -n 0 --pdb` debugs a failing one."""
    install(session, "test")
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types: mypy --strict over the package."""
    install(session, "typecheck")
    session.run("mypy")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure every claim about speed and write tests/bench/RESULTS.md; `-- --gpus 0` for a GPU, `-- --quick` to try it out."""
    install(session)
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session(default=False)
def quality(session: nox.Session) -> None:
    """Make and run the detection benchmark; `-- --help` says how to choose experiments, categories and sizes."""
    install(session)
    session.run("python", "tests/quality", *session.posargs)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device."""
    install(session, "test")
    session.run(
        "python", "-c", "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'no CUDA device here')"
    )
    session.run("pytest", "tests/test_gpu.py", "-m", "gpu", *session.posargs)
