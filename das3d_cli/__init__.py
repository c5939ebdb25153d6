"""das3d: find defects on parts from an RGB image and a point cloud, after training on good parts only."""

from typing import TYPE_CHECKING, Any

from das3d_cli.errors import Das3dError, DataError, UsageError

if TYPE_CHECKING:
    from das3d_cli.detector import Detector, Prediction
    from das3d_cli.measure import Defect

__version__ = "0.1.0"

__all__ = ["Das3dError", "DataError", "Defect", "Detector", "Prediction", "UsageError", "__version__"]

_LATER = ("Defect", "Detector", "Prediction")


def __getattr__(name: str) -> Any:
    """Import the detector, and with it torch, on first use."""
    if name in _LATER:
        from das3d_cli import detector

        return getattr(detector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
