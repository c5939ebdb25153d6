"""Reading files into a raw capture. Whatever is wrong with a file is raised as a `DataError` that names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from das3d_cli.data.capture import UNITS, Camera, RawCapture
from das3d_cli.data.clouds import PCD_SUFFIXES, PLY_SUFFIXES, SizeSource, read_cloud
from das3d_cli.data.decode import JPEG_MAGIC, PNG_MAGIC, TIFF_MAGICS, decode_image, decode_tiff, read_bytes
from das3d_cli.data.depth import CAMERA_FILE, back_project, read_limits
from das3d_cli.data.parallax import are_parallel, meet
from das3d_cli.errors import DataError

# The camera of a depth image, or a function that finds it; called for depth images only, as point clouds need none.
CameraSource = Camera | Callable[[], Camera | None] | None

_DEPTH_IMAGE = b"\x10\x00"  # in a PNG's header: 16 bits, grey
_INVALID = 65535  # 16-bit value that some cameras write where nothing was measured
_ALL = 0.9  # share of an image: no defect is this large, but an inverted mask is
_FARTHEST_M, _NEAREST_M = 20.0, 0.002  # limits of a plausible scene's size
_NAMES = {"m": "metres", "mm": "millimetres", "um": "micrometres"}
# The largest scene taken to be in a unit that is not known: one of 10 millimetres is likelier than one of 10 metres.
_LIKELY_M = {"m": 5.0, "mm": _FARTHEST_M, "um": math.inf}
_CODE_SHARE = 0.001, 0.5  # of an image, whose z is one and the same value, far from all others: a code, not a surface
# Some programs write huge values where nothing was measured: no point of a plausible scene is as far away as the first
# limit, and no scene in any unit as large as the second.
_NO_POINT_M, _NO_SCENE_M = 1e3, 1e9


def read_capture(
    rgb_path: Path | None,
    xyz_path: Path | None,
    camera: CameraSource = None,
    limits: Path | None = None,
    unit: str = "m",
) -> RawCapture:
    """Read one part: a colour image and an organised point cloud of the same size, or one of the two.

    Args:
        rgb_path: as for `read_rgb`.
        xyz_path, camera, limits, unit: as for `read_xyz`.

    Raises:
        DataError: as `read_rgb` and `read_xyz`, or the two differ in size.
    """
    if rgb_path is None or xyz_path is None:
        rgb = None if rgb_path is None else read_rgb(rgb_path, upright=xyz_path is None)
        return RawCapture(rgb, None if xyz_path is None else read_xyz(xyz_path, camera, limits, unit))
    with ThreadPoolExecutor(2) as threads:  # both take about equally long
        photo = threads.submit(read_rgb, rgb_path)
        points = threads.submit(read_xyz, xyz_path, camera, limits, unit, size=lambda: photo.result().shape[:2])
        rgb, xyz = photo.result(), points.result()
    check_size(rgb_path, rgb, xyz.shape[:2])
    return RawCapture(rgb, xyz)


def check_size(name: Path | str, image: NDArray[Any], size: tuple[int, ...], of: str = "point cloud") -> None:
    """Raise a DataError unless the image called `name` has this height and width; `of` names what has them."""
    if image.shape[:2] != size:
        raise DataError(
            f"{name}: is {_extent(image.shape[1::-1])} pixels, but its {of} is {_extent(size[1::-1])}; "
            "both must show the same view at the same size"
        )


def read_xyz(
    path: Path,
    camera: CameraSource = None,
    limits: Path | None = None,
    unit: str = "m",
    size: SizeSource = None,
) -> NDArray[np.float32]:
    """Read an organised point cloud: a floating-point TIFF, a PCD, a PLY or, with its camera, a depth image.

    Args:
        path: the file; a depth image is a 16-bit PNG or a TIFF.
        camera: of the depth image, or a function that finds it; a point cloud needs none.
        limits: Eyecandies' info_depth.yaml, which scales the depth image to metres.
        unit: key of `UNITS`, the unit of the stored values.
        size: returns height and width of the colour image, for a PCD or PLY that does not hold its own.

    Returns:
        float32, (H, W, 3), metres in the camera's frame. A point stored as (0, 0, 0) or with any NaN is NaN in all
        three. So is one beside or behind the camera, judged by its z, unless the rays are parallel; if they are, it
        is one of many with the same z, farther from all other points than the scene is wide.

    Raises:
        DataError: missing, truncated or of another kind; not (H, W, 3); not floating point; infinite values; every
            point missing; apparently another unit.
    """
    points, known = _read_stored(path, camera, limits, size)
    if known == "m":
        return _of_size(points, str(path), "m", f"correct the scale (metres per step) in {CAMERA_FILE} or the table")
    if known == "mm" and unit == "m":  # an integer depth image among point clouds in metres
        unit = "mm"
    points *= np.float32(UNITS[unit])
    return _of_size(
        points, str(path), unit, "convert it, or give the unit of all files to preprocess with --set preprocess.units"
    )


def guess_unit(
    rgb_path: Path | None, xyz_path: Path, camera: Camera | None = None, limits: Path | None = None
) -> tuple[str, bool]:
    """Return the unit of a part's coordinates, and whether the kind of file determines it.

    Otherwise it follows from their size, see `_LIKELY_M`.

    Raises:
        DataError: as `read_capture`.
    """
    size = None if rgb_path is None else lambda: read_rgb(rgb_path).shape[:2]
    points, known = _read_stored(xyz_path, camera, limits, size)
    if known:
        return known, True
    extent = _extent_of(points)
    return next(unit for unit, most in _LIKELY_M.items() if extent * UNITS[unit] <= most), False


def as_points(xyz: ArrayLike, name: str) -> NDArray[np.float32]:
    """Convert an array in metres to an organised point cloud as `read_xyz` returns it; errors call it `name`.

    Masked points of a masked array are missing.

    Raises:
        DataError: as `read_xyz`.
    """
    masked = np.ma.isMaskedArray(xyz) and xyz.dtype.kind == "f"
    return _of_size(
        _clean(np.ma.filled(xyz, np.nan) if masked else _array(xyz, name), name), name, "m", "convert it to metres"
    )


def _array(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, and tensors on a GPU or with a gradient
        raise DataError(f"{name}: is not an array that numpy can read: {str(error).partition(chr(10))[0]}") from None


def kind_of_photo(path: Path) -> str:
    """The kind of a colour image, "PNG" or "JPEG", by its first bytes, or by its suffix, which may lie; else ""."""
    try:
        if path.is_file():  # a pipe can be read only once
            with path.open("rb") as file:
                start = file.read(len(PNG_MAGIC))
            if start.startswith((PNG_MAGIC, JPEG_MAGIC)):
                return "PNG" if start == PNG_MAGIC else "JPEG"
    except (OSError, ValueError):
        pass
    return {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), "")


def read_rgb(path: Path, *, upright: bool = False) -> NDArray[np.uint8]:
    """Read a colour or grey image from an 8-bit PNG or JPEG.

    Args:
        path: the file.
        upright: rotate a JPEG by its EXIF orientation, as viewers do; not beside points, which keep the sensor's.

    Returns:
        uint8, (H, W, 3), in the order red, green, blue, which are equal where the image is grey.

    Raises:
        DataError: missing, truncated or of another kind; 16-bit or with an alpha channel.
    """
    image = decode_image(path, read_bytes(path, "colour image"), "colour image", upright=upright)
    return np.asarray(cv2.cvtColor(as_rgb(image, str(path)), cv2.COLOR_BGR2RGB), np.uint8)


def as_rgb(image: ArrayLike, name: str) -> NDArray[np.uint8]:
    """Return an 8-bit colour or grey image, (H, W, 3) or (H, W), with three channels; errors call it `name`.

    Raises:
        DataError: as `read_rgb`.
    """
    image = _array(image, name)
    if not image.size:
        raise DataError(f"{name}: is {_extent(image.shape)} and holds no pixels")
    if image.dtype != np.uint8:
        raise DataError(f"{name}: holds {image.dtype} values; convert it to 8-bit RGB (uint8)")
    if image.ndim == 2 or image.shape[2:] == (1,):
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"{name}: has channels other than red, green and blue, such as alpha; convert it to 8-bit RGB without transparency"
        )
    return image


def read_ground_truth(path: Path) -> NDArray[np.bool_]:
    """Read a ground truth mask from a PNG of any kind.

    Returns:
        bool, (H, W), true where any colour channel is above 0 and the pixel is not transparent.

    Raises:
        DataError: missing, truncated or not a PNG, or nearly everything is marked.
    """
    data = read_bytes(path, "ground truth")
    if data.startswith(JPEG_MAGIC):
        raise DataError(
            f"{path}: is a JPEG, which also marks good pixels; save the mask as PNG in the program that drew it"
        )
    image = decode_image(path, data, "ground truth")
    colours = image[..., None] if image.ndim == 2 else image[..., :3]
    marked = (colours > 0).any(axis=2)
    if image.ndim == 3 and image.shape[2] == 4:  # a drawing on a transparent layer, whose colour may be white
        marked &= image[..., 3] > 0
    if marked.mean() > _ALL:
        raise DataError(
            f"{path}: marks {marked.mean():.0%} of the image; invert it, as black means good and any other colour a defect"
        )
    return np.asarray(marked)


def _read_stored(
    path: Path, camera: CameraSource, limits: Path | None, size: SizeSource
) -> tuple[NDArray[np.float32], str]:
    """The points as stored, and their unit if the kind of file determines it, else ""."""
    data = read_bytes(path, "point cloud")
    if path.suffix.lower() in (*PCD_SUFFIXES, *PLY_SUFFIXES):
        return _clean(read_cloud(path, data, size), str(path)), ""
    stored = decode_tiff(path, data) if data.startswith(TIFF_MAGICS) else None
    if stored is not None and stored.ndim == 3 and stored.shape[2] == 1:
        stored = stored[..., 0]
    of_depth = stored is None or stored.ndim == 2
    camera = camera() if of_depth and callable(camera) else camera
    if of_depth and isinstance(camera, Camera):
        depth, unit = _read_depth(path, data, stored, camera, limits)
        return _clean(back_project(depth, camera), str(path)), unit
    if data.startswith(PNG_MAGIC) and data[24:26] == _DEPTH_IMAGE:
        raise DataError(
            f"{path}: is a depth image; describe its camera in {CAMERA_FILE} beside it, or give a TIFF point cloud"
        )
    if data.startswith((PNG_MAGIC, JPEG_MAGIC)):
        kind = "PNG" if data.startswith(PNG_MAGIC) else "JPEG"
        raise DataError(f"{path}: is a {kind}, but a TIFF point cloud is expected here; swapped with the colour image?")
    if stored is None:
        raise DataError(f"{path}: is not a TIFF file; save the point cloud as an H x W x 3 float32 TIFF")
    return _clean(stored, str(path)), ""


def _read_depth(
    path: Path, data: bytes, stored: NDArray[Any] | None, camera: Camera, limits: Path | None
) -> tuple[NDArray[np.float32], Literal["m", "mm", ""]]:
    """A depth image, NaN where missing, and its unit: by custom, integers are millimetres unless known otherwise."""
    stored = decode_image(path, data, "depth image") if stored is None else stored
    if stored.ndim != 2 or stored.dtype not in (np.uint16, np.float32, np.float64):
        raise DataError(
            f"{path}: is {_extent(stored.shape)} of {stored.dtype}, but a depth image is H x W of uint16, float32 or float64"
        )
    depth = stored.astype(np.float32)
    if limits is not None:  # here 0 is the nearest depth, not a missing one
        near, far = read_limits(limits)
        return depth * np.float32((far - near) / 65535) + np.float32(near), "m"
    depth[depth == 0] = np.nan
    if stored.dtype == np.uint16:
        depth[stored == _INVALID] = np.nan
    if camera.scale is not None:
        return depth * np.float32(camera.scale), "m"
    return depth, "mm" if stored.dtype == np.uint16 else ""


def _clean(xyz: NDArray[Any], name: str) -> NDArray[np.float32]:
    """Points in any unit as float32, NaN in all three coordinates where missing."""
    if xyz.ndim != 3 or xyz.shape[2] != 3:
        raise DataError(
            f"{name}: is {_extent(xyz.shape)}, but a point cloud is H x W x 3; store x, y and z"
            f" or, for a depth image, describe its camera in {CAMERA_FILE}"
        )
    if xyz.dtype.kind != "f":
        raise DataError(f"{name}: holds {xyz.dtype} values; store x, y and z as float32 in metres")
    with np.errstate(over="ignore"):  # in C order: sums in other orders differ in their last bits
        points: NDArray[np.float32] = np.array(xyz, np.float32, order="C")
    if np.isinf(points).any():
        raise DataError(f"{name}: holds infinite values; mark missing points as (0, 0, 0) or NaN")

    if min(points.shape[:2]) < 2:
        raise DataError(
            f"{name}: is {_extent(points.shape[:2])} points; a surface needs at least two rows and two columns"
        )
    x, y, z = (cv2.extractChannel(points, axis) for axis in range(3))  # interleaved channels take far longer
    missing = np.isnan(x) | np.isnan(y) | np.isnan(z) | ((x == 0) & (y == 0) & (z == 0))
    # No camera sees a point beside or behind itself; with parallel rays, z may be a height over anything.
    unseen = ~missing & ((z <= 0) if np.count_nonzero(z > 0) >= np.count_nonzero(z < 0) else (z >= 0))
    if unseen.any():
        if meet(np.where(unseen[..., None], np.float32(np.nan), points)):
            missing |= unseen
        elif not are_parallel(points):
            missing |= unseen & (z == 0)
    missing |= _coded(points, missing)
    if missing.all():
        raise DataError(f"{name}: every point is missing; capture the part again")
    points.reshape(-1, 3)[np.flatnonzero(missing)] = np.nan  # by index, which takes half the time of a mask
    return points


def _coded(points: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Points of parallel rays whose z is a code for missing ones, such as -99.9999, though x and y may be the grid's."""
    z, coded = cv2.extractChannel(points, 2), np.zeros_like(missing)
    z[missing] = np.nan
    for outermost in (np.fmin, np.fmax):
        code = outermost.reduce(z, axis=None)
        same = z == code
        if not _CODE_SHARE[0] * z.size <= np.count_nonzero(same) <= _CODE_SHARE[1] * z.size:
            continue
        following = outermost.reduce(z[~same], initial=np.nan)
        places = points[~missing & ~coded & (points[..., 0] != code)][:, :2]
        if not len(places) or abs(float(following - code)) <= float(np.ptp(places, axis=0).max()):
            continue
        others = np.where((missing | coded | same)[..., None], np.float32(np.nan), points)
        if are_parallel(others):
            coded |= same
            z[same] = np.nan
    return coded


def _of_size(points: NDArray[np.float32], name: str, unit: str, mend: str) -> NDArray[np.float32]:
    """The points, if their size is plausible for metres; `unit` is the assumed one, `mend` the advice if it is not."""
    farthest = float(np.fmax.reduce(np.abs(points), axis=None))
    extent = _extent_of(points) if farthest < _NO_SCENE_M else 0.0
    if farthest > _NO_POINT_M and extent < _FARTHEST_M:
        raise DataError(f"{name}: holds a point {farthest:.3g} m away; mark missing points as (0, 0, 0) or NaN")
    if not _NEAREST_M < extent < _FARTHEST_M:
        stored = extent / UNITS[unit]
        likely = next(_NAMES[one] for one, most in _LIKELY_M.items() if stored * UNITS[one] <= most)
        raise DataError(f"{name}: median distance of {stored:.3g} {unit} looks like {likely}; {mend}")
    return points


def _extent_of(points: NDArray[np.float32]) -> float:
    """The size of a scene: its median distance from the camera or its width, whichever is larger."""
    step = 1 + max(points.shape[:2]) // 100
    few = points[::step, ::step].reshape(-1, 3)
    few = few[~np.isnan(few[:, 2])]
    if len(few) < 100:
        few = points[~np.isnan(points[..., 2])]
    places = few.astype(np.float64)  # placeholders for missing points may overflow in float32
    width = np.ptp(np.percentile(places[:, :2], [5, 95], axis=0), axis=0).max()
    return float(max(np.median(np.abs(places[:, 2])), width))


def _extent(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
