"""Which of a part's two images something holds, needs or looks at."""

from __future__ import annotations

from typing import Literal

Modality = Literal["both", "rgb", "depth"]  # rgb: the colour image, depth: the point cloud
