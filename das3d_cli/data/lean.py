"""A lean start of open3d, for processes that are das3d's own."""

from __future__ import annotations

import sys
from types import ModuleType

_UNUSED = ("open3d.visualization", "open3d.ml")


def without_viewers() -> None:
    """Let `import open3d` leave out its viewers and its learning library in this process, from now on.

    It loads them unasked, and with them dash, pandas and more: three quarters of the time that it takes, for nothing that
    das3d uses. A program that calls das3d may use them, and is left alone.
    """
    if "open3d" not in sys.modules:
        sys.modules.update({name: ModuleType(name) for name in _UNUSED})
