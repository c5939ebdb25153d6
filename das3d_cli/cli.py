"""The `das3d` command: one module of `das3d_cli.commands` per subcommand, imported when it is called."""

from __future__ import annotations

import codecs
import contextlib
import errno
import gc
import importlib
import io
import os
import sys
import time
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from das3d_cli import __version__
from das3d_cli.data.lean import without_viewers
from das3d_cli.engine.launch import launched
from das3d_cli.errors import CLOSED, Das3dError, UsageError, unforeseen
from das3d_cli.files import on_a_line, reason
from das3d_cli.memory import keep_freed

_GRACE = 5  # seconds within which torch's launcher notices that a process has ended

_SUMMARIES = {
    "preprocess": "Turn a data set of captures into a cache of model-ready samples.",
    "synth-preview": "Draw the artificial defects that training makes.",
    "train": "Train a detector on the good parts of one or more categories.",
    "evaluate": "Measure trained detectors on their test splits, and make the paper's tables.",
    "benchmark": "Time a trained detector on this machine.",
    "predict": "Judge one part or many: verdict, score, and the place and size of defects.",
}


class Command(TyperCommand):
    """A subcommand that refuses an option given twice, where Typer would ignore the first value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = self.make_parser(ctx).parse_args(args=list(args))[2]
        rest = super().parse_args(ctx, args)  # --help ends here
        for option in self.params:
            times = given.count(option)
            if times > 1 and not (option.multiple or getattr(option, "is_flag", False)):
                raise UsageError(f"{option.opts[0]}: takes one value but is given {times} times; give it once")
        return rest


class Commands(TyperGroup):
    """The subcommands, imported on use: their options need the settings model, too slow to load for `das3d --help`."""

    _brief = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_SUMMARIES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _SUMMARIES:
            return None
        if self._brief:
            return TyperCommand(cmd_name, help=_SUMMARIES[cmd_name])
        module = importlib.import_module(f"das3d_cli.commands.{cmd_name.replace('-', '_')}")
        subcommand = typer.Typer(add_completion=False)
        subcommand.command(cmd_name, cls=Command, help=_SUMMARIES[cmd_name])(module.run)
        return typer.main.get_command(subcommand)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._brief = True
        super().format_help(ctx, formatter)


app = typer.Typer(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"das3d {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    """Find defects on parts from an RGB image and a point cloud, after training on good parts only."""


def main() -> None:
    """Run the command line; every error becomes one line on stderr and an exit code."""
    try:
        _run()
    except SystemExit as end:
        # Other processes may have ended: Python's clean-up of a process group that has lost them would abort.
        if launched() and isinstance(end.code, int) and end.code:
            _exit(end.code)
        raise


def _run() -> NoReturn:
    _open_closed_streams()
    without_viewers()
    keep_freed()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error("das3d", _as_can_be)
        sys.stdout.reconfigure(errors="das3d")
    gc.set_threshold(50_000)  # torch's import makes many lasting objects; scanning them often is slow
    try:
        _check_given(sys.argv[1:])
        code = app(args=sys.argv[1:] or ["--help"], prog_name="das3d", standalone_mode=False)
    except Das3dError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _exit(130)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "das3d"
        _fail(f"{error.format_message().rstrip('.')}; see {command} --help", UsageError.exit_code)
    except PermissionError as error:
        where = error.filename or "a file"
        _fail(f"{where}: permission denied; give this user read and write access, or choose another place", 1)
    except Exception as error:  # noqa: BLE001  (what is not foreseen is still one line)
        if launched():  # if another process died, the launcher ends this one before it reports that
            time.sleep(_GRACE)
        told = _of_system(error) if isinstance(error, OSError) else ""
        _fail(told or f"internal error: {unforeseen(error)}; run again with `das3d --debug` for details", 1)
    gc.freeze()  # the exit then skips a last garbage collection
    sys.exit(code if isinstance(code, int) else 0)


def _of_system(error: OSError) -> str:
    """What went wrong with a file or with stdout, and how to fix it; "" if the error tells neither."""
    if error.filename:
        return f"{error.filename}: {reason(error)}; fix this, or choose another place"
    if error.errno == errno.EBADF:
        return CLOSED
    if error.errno == errno.ENOSPC:
        return f"standard output or a file: cannot be written: {reason(error)}; free some disk space, or send the output elsewhere"
    return ""


def _open_closed_streams() -> None:
    """Open closed standard streams: else output goes to another stream or the first file opened.

    Nothing is read from stdin, nobody sees what is written to stderr, and writing to stdout fails, as a result is lost.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:  # takes the lowest free number
        os.set_inheritable(opened, True)  # by child processes
    os.close(opened)
    if sys.stdout is None:
        closed = os.open(os.devnull, os.O_RDONLY)
        os.dup2(closed, 1)
        os.close(closed)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, errors="replace", closefd=False))  # noqa: SIM115  (until the process ends)


def _as_can_be(error: UnicodeError) -> tuple[bytes, int]:
    """Encode what stdout cannot: undecodable bytes of file names stay; other characters, such as "°", become "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return b"".join(bytes([ord(one) - 0xDC00]) if 0xDC80 <= ord(one) <= 0xDCFF else b"?" for one in text), error.end


def _check_given(arguments: list[str]) -> None:
    """Check that no argument is empty: as a path it would mean the working folder.

    Raises:
        UsageError: an argument is empty.
    """
    for before, text in zip(["", *arguments], arguments, strict=False):
        if not text or (text.startswith("--") and text.find("=") == len(text) - 1):
            option = text or before
            where = f"the argument after {option}" if option else "the first argument"
            raise UsageError(f"{where} is empty; perhaps it is a shell variable that is not set")


def _fail(text: str, code: int) -> NoReturn:
    if "--debug" in sys.argv[1:2]:
        traceback.print_exc()  # called from an except block
        _exit(code)
    if launched():
        from das3d_cli.engine.distributed import first_to_fail

        if not first_to_fail():
            _exit(code)

    print("error: " + on_a_line(" ".join(text.splitlines())), file=sys.stderr)
    _exit(code)


def _exit(code: int) -> NoReturn:
    """End a failed process. One of several that train together skips Python's clean-up, which would wait for others."""
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again as it ends, and report that
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if launched():
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
