"""Errors that a user can fix. `cli.py` prints them and exits with their code."""

from collections.abc import Iterable

CLOSED = "standard output: is closed; send it to a file, or to /dev/null if nobody needs it"
_SHOWN = 8  # names in one line


class Das3dError(Exception):
    """One line for the user: what is wrong, where, and how to fix it."""

    exit_code = 1


class UsageError(Das3dError):
    """The command line or the settings are wrong."""

    exit_code = 2


class DataError(Das3dError):
    """A file, a capture, a cache or a run cannot be used."""


class NothingFoundError(DataError):
    """A capture in which no table, or no part on it, was found: there is none, or it is not as large as expected."""


def unforeseen(error: Exception) -> str:
    """Describe an unexpected error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def some_of(names: Iterable[str]) -> str:
    """Join names for one line of a message, with dots in place of those beyond the first few."""
    listed = list(names)
    return ", ".join([*listed[:_SHOWN], *(["..."] if len(listed) > _SHOWN else [])])
