"""Terminal output: results go to stdout, everything else to stderr."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from das3d_cli.errors import CLOSED, DataError
from das3d_cli.files import on_a_line, reason, to_json


class _Notes(Console):
    """The console for stderr. When its reader has gone, the work goes on silently."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


stdout = Console(soft_wrap=True, emoji=False)
stderr = _Notes(stderr=True, soft_wrap=True, emoji=False)


def say(text: str) -> None:
    """Print a line for people on stderr; if that fails, the work goes on."""
    with suppress(OSError):
        stderr.print(on_a_line(text), markup=False, highlight=False)


def show(table: Table) -> None:
    """Print a table as the result on stdout; on a terminal too narrow its lines wrap, but nothing is cut.

    Raises:
        DataError: stdout cannot be written.
    """
    width = Measurement.get(stdout, stdout.options.update(max_width=10_000), table)
    least = width.maximum if all(column.no_wrap for column in table.columns) else width.minimum
    if least > stdout.width:
        table.width = least
    with _told():
        stdout.print(table)


def result(text: str) -> None:
    """Print the command's result on stdout, unchanged. Raises as `show`."""
    with _told():
        typer.echo(text)


def record(content: Any) -> None:
    """Print the command's result for other programs on stdout: JSON on one line. Raises as `show`."""
    result(to_json(content, for_others=True))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        if error.errno == errno.EBADF:
            raise DataError(CLOSED) from None
        raise DataError(
            f"standard output: cannot be written: {reason(error)}; free some disk space, or send it elsewhere"
        ) from None


@contextmanager
def progress(text: str, *, shown: bool = True) -> Iterator[Progress]:
    """A progress bar on stderr, drawn only on a terminal; pass shown=False where another process draws its own."""
    columns = (
        TextColumn(f"{text} {{task.description}}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # Rich takes FORCE_COLOR as a sign of a terminal, but build servers set it only to get colours.
    drawn = shown and stderr.is_terminal and stderr.file.isatty()
    with Progress(*columns, console=stderr, disable=not drawn, transient=True) as bar:
        yield bar
