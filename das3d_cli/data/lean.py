"""A faster import of open3d, for das3d's own processes."""

from __future__ import annotations

import sys
from types import ModuleType

_UNUSED = ("open3d.visualization", "open3d.ml")


def without_viewers() -> None:
    """Make `import open3d` leave out its viewers and its learning library in this process.

    das3d uses none of them, but loading them, and with them dash, pandas and more, takes three quarters of the import time.
    Do not call it in a program that uses das3d as a library: that program may need them.
    """
    if "open3d" not in sys.modules:
        sys.modules.update({name: ModuleType(name) for name in _UNUSED})
