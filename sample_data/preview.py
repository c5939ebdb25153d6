"""Draw a contact sheet of a data set: one column per label, with colour, relief and ground truth below each other.

python sample_data/preview.py sample_data/mvtec3d sample_data/preview.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import tifffile
from generator.writer import encode_png
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def shaded(xyz: NDArray[np.float32]) -> Image:
    """(H, W, 3) relief of the measured surface, lit from the upper left; missing points dark red."""
    depth = xyz[..., 2].astype(np.float64) * 1000
    missing = depth == 0
    known = cv2.GaussianBlur((~missing).astype(np.float64), (0, 0), 0.8)
    smooth = cv2.GaussianBlur(np.where(missing, 0, depth), (0, 0), 0.8) / np.clip(known, 1e-6, None)
    down, right = np.gradient(np.where(known > 0.05, smooth, np.median(depth[~missing])))
    light = np.clip(0.6 - 0.3 * (down + right), 0, 1)
    out = np.repeat(np.rint(255 * light).astype(np.uint8)[..., None], 3, axis=-1)
    out[missing] = (70, 12, 12)
    return out


def read_png(path: Path) -> Image:
    """(H, W, 3) RGB."""
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"cannot read {path}")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def column(folder: Path, size: int) -> Image:
    """Colour, relief and truth of the capture with the largest defect, each cut to a square `size` wide."""
    truths = {path.stem: read_png(path) for path in sorted((folder / "gt").glob("*.png"))}
    name = max(truths, key=lambda key: int(truths[key].sum()))
    relief = shaded(tifffile.imread(folder / "xyz" / f"{name}.tiff"))
    tiles = []
    for image in (read_png(folder / "rgb" / f"{name}.png"), relief, truths[name]):
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = image[top : top + side, left : left + side]
        tiles.append(np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8))
    head = np.full((16, size, 3), 255, dtype=np.uint8)
    cv2.putText(head, folder.name, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, *tiles])


def main() -> None:
    """Read the arguments, write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with <category>/test/...")
    parser.add_argument("sheet", type=Path, help="PNG to write")
    parser.add_argument("--size", type=int, default=100, help="pixels per picture")
    args = parser.parse_args()
    bands = []
    for category in sorted(path for path in args.data.iterdir() if (path / "test").is_dir()):
        labels = sorted((category / "test").iterdir(), key=lambda path: (path.name != "good", path.name))
        bands.append(np.concatenate([column(label, args.size) for label in labels], axis=1))
    width = max(band.shape[1] for band in bands)
    padded = [np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0)), constant_values=255) for b in bands]
    args.sheet.write_bytes(encode_png(np.concatenate(padded)))


if __name__ == "__main__":
    main()
