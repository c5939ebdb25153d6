"""Write tiny captures as users have them: one function per file format and one per data set layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from conftest import FOCAL, Part, render
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from das3d_cli.data.capture import Camera

CAMERA = Camera(FOCAL, FOCAL)  # that of `render`
PLAN = {"train/good/000": "", "train/good/001": "", "train/good/002": "", "test/good/000": "", "test/bump/000": "bump"}


def parts() -> dict[str, Part]:
    """The parts of one category, keyed by split/label/name."""
    return {place: render("ring", seed=seed, defect=defect) for seed, (place, defect) in enumerate(PLAN.items())}  # type: ignore[arg-type]


def save_image(path: Path, image: NDArray[Any]) -> Path:
    """Write a PNG or JPEG; `image` is grey or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def save_mask(path: Path, mask: NDArray[np.bool_]) -> Path:
    return save_image(path, mask.astype(np.uint8) * 255)


def save_tiff(path: Path, values: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, photometric="rgb" if values.ndim == 3 else "minisblack")
    return path


def save_depth(path: Path, xyz: NDArray[np.float32], unit_m: float = 1e-4) -> Path:
    """Write the depth as a 16-bit image in units of `unit_m` metres, 0 where missing."""
    return save_image(path, np.rint(np.nan_to_num(xyz[..., 2]) / unit_m).astype(np.uint16))


def save_camera(folder: Path, **values: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "camera.json").write_text(json.dumps(values))


def save_pcd(path: Path, xyz: NDArray[np.float32], form: str = "binary") -> Path:
    """Write a PCD as scanners do, with a colour after each point."""
    height, width, _ = xyz.shape
    rows = xyz.reshape(-1, 3)
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\n"
        f"COUNT 1 1 1 1\nWIDTH {width}\nHEIGHT {height}\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA {form}\n"
    )
    if form == "ascii":
        body = "".join(f"{x:.9g} {y:.9g} {z:.9g} 255\n" for x, y, z in rows).encode()
    else:
        table = np.empty(len(rows), [("xyz", "<f4", 3), ("rgb", "<u4")])
        table["xyz"], table["rgb"] = rows, 255
        body = table.tobytes()
        if form == "binary_compressed":  # field by field; LZF with literal runs only
            plain = b"".join(rows[:, i].tobytes() for i in range(3)) + table["rgb"].tobytes()
            runs = [plain[i : i + 32] for i in range(0, len(plain), 32)]
            packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
            body = np.array([len(packed), len(plain)], "<u4").tobytes() + packed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + body)
    return path


def save_ply(path: Path, xyz: NDArray[np.float32], form: str = "binary_little_endian", size: str = "obj_info") -> Path:
    """Write a PLY as scanners do: its size in obj_info lines, in PCL's camera after the points, or nowhere."""
    height, width, _ = xyz.shape
    rows, order = xyz.reshape(-1, 3), ">" if form.endswith("big_endian") else "<"
    noted = f"obj_info num_cols {width}\nobj_info num_rows {height}\n" if size == "obj_info" else ""
    names = ("k1", "k2")
    camera = ["element camera 1", "property float view_px", "property int viewportx", "property int viewporty",
              *(f"property float {name}" for name in names)] if size == "camera" else []  # fmt: skip
    header = "\n".join(["ply", f"format {form} 1.0", *noted.splitlines(), f"element vertex {len(rows)}",
                        "property float x", "property float y", "property float z", "property uchar red",
                        *camera, "end_header", ""])  # fmt: skip
    if form == "ascii":
        body = "".join(f"{x:.9g} {y:.9g} {z:.9g} 7\n" for x, y, z in rows).encode()
        body += f"0 {width} {height} 0 0\n".encode() if camera else b""
    else:
        table = np.empty(len(rows), [("xyz", f"{order}f4", 3), ("red", "u1")])
        table["xyz"], table["red"] = rows, 7
        last = np.array([(0, width, height, 0, 0)], f"{order}f4,{order}i4,{order}i4,{order}f4,{order}f4")
        body = table.tobytes() + (last.tobytes() if camera else b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + body)
    return path


def eyecandies_depth(part: Part) -> NDArray[np.float32]:
    """The part's depth in metres, (H, W), gapless as in a rendered scene: gaps take the nearest point's depth."""
    z = part.capture.xyz[..., 2]
    rows, columns = distance_transform_edt(np.isnan(z), return_distances=False, return_indices=True)
    return np.asarray(z[rows, columns])


def write_eyecandies(folder: Path, index: str, part: Part, types: tuple[str, ...] = (), *, truth: bool = True) -> None:
    """Write a part's files to <Category>/<split>/data: each light in its own shade, each type a band of the defect."""
    depth, rgb = eyecandies_depth(part), part.capture.rgb
    near, far = 0.3, 0.5
    for light in range(6):
        save_image(folder / f"{index}_image_{light}.png", rgb // 2 + np.uint8(10 * light))
    save_image(folder / f"{index}_depth.png", np.rint((depth - near) / (far - near) * 65535).astype(np.uint16))
    (folder / f"{index}_info_depth.yaml").write_text(f"normalization:\n  max: {far}\n  min: {near}\n")
    (folder / f"{index}_pose.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    save_image(folder / f"{index}_normals.png", rgb)
    if truth:
        nothing = np.zeros_like(part.ground_truth)
        (folder / f"{index}_metadata.yaml").write_text(f"anomalous: {int(bool(types))}\n")
        columns = np.arange(nothing.shape[1])
        bands = np.array_split(columns[part.ground_truth.any(axis=0)], max(1, len(types)))
        for kind in ("bumps", "dents", "colors", "normals"):
            mine = np.isin(columns, bands[types.index(kind)]) if kind in types else nothing
            save_mask(folder / f"{index}_{kind}_mask.png", part.ground_truth & mine)
        save_mask(folder / f"{index}_mask.png", part.ground_truth if types else nothing)


def eyecandies(root: Path) -> Path:
    for place, part in parts().items():
        split, label, name = place.split("/")
        folder = root / "GummyBear" / {"train": "train", "test": "test_public"}[split] / "data"
        number = int(name) + 10 * (label != "good")
        write_eyecandies(folder, f"{number:03d}" if split == "train" else f"{number:02d}", part,
                         ("bumps", "colors") if label != "good" else ())  # fmt: skip
    write_eyecandies(root / "GummyBear/val/data", "00", render("ring", seed=8))
    write_eyecandies(root / "GummyBear/test_private/data", "000", render("ring", seed=9), truth=False)
    return root


def realiad(root: Path) -> Path:
    for place, part in parts().items():
        split, label, name = place.split("/")
        folder = root / "fuse_holder" / split / ("GOOD" if label == "good" else label)
        xyz = part.capture.xyz.copy()
        xyz[..., :2] = np.nan_to_num(xyz[..., :2])  # NaN in z alone
        save_tiff(folder / f"xyz/S{name}.tiff", xyz)
        for light in ("L01", "L05"):
            save_image(folder / f"rgb/S{name}/cam_{light}_RGB.jpg", part.capture.rgb // (2 if light == "L01" else 1))
        save_image(folder / f"ps/S{name}.jpg", part.capture.rgb)
        if label != "good":
            save_mask(folder / f"gt/rgb/S{name}.png", part.ground_truth)
    return root


def adam(root: Path) -> Path:
    for place, part in parts().items():
        folder, name = (root / "gripper_open" / place).parent, place.split("/")[-1]
        save_image(folder / f"rgb/{name}_C.png", part.capture.rgb)
        save_tiff(folder / f"xyz/{name}_C.tiff", np.nan_to_num(part.capture.xyz))
        if folder.name != "good":
            save_mask(folder / f"ground_truth/{name}_C.png", part.ground_truth)
    return root


def mvtec(root: Path) -> Path:
    """MVTec AD, the 2-D data set: images only."""
    for place, part in parts().items():
        _, label, name = place.split("/")
        save_image(root / f"hazelnut/{place}.png", part.capture.rgb)
        if label != "good":
            save_mask(root / f"hazelnut/ground_truth/{label}/{name}_mask.png", part.ground_truth)
    return root


def pairs(root: Path) -> Path:
    """A user's own data: only good/ and one folder of defects, with points in millimetres."""
    for place, part in parts().items():
        split, label, name = place.split("/")
        stem = root / label / f"{split}{name}"
        if place == "test/good/000":
            continue
        save_image(stem.with_suffix(".png"), part.capture.rgb)
        save_tiff(stem.with_suffix(".tiff"), part.capture.xyz * 1000)
        if label != "good":
            save_mask(stem.with_name(f"{stem.name}_mask.png"), part.ground_truth)
    return root


def depth_table(root: Path) -> Path:
    """A CSV table of colour and depth images, with the camera in its columns; returns its path."""
    lines = ["split;label;name;rgb;depth;gt;fx;scale;operator"]
    for number, (place, part) in enumerate(parts().items()):
        split, label, name = place.split("/")
        save_image(root / f"images/{number}.png", part.capture.rgb)
        save_depth(root / f"depth/{number}.png", part.capture.xyz, 1e-5)
        mask = f"masks/{number}.png" if label != "good" else ""
        if mask:
            save_mask(root / mask, part.ground_truth)
        lines.append(f"{split};{label};{name};images/{number}.png;depth/{number}.png;{mask};{FOCAL};1e-5;Ann")
    (root / "valve.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return root / "valve.csv"
