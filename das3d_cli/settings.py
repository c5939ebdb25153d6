"""Every setting of das3d: its default, range, unit, help and, where the paper is silent, the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from das3d_cli.modality import Modality

LayoutName = Literal["auto", "eyecandies", "realiad", "flat", "mvtec3d", "table"]
Preset = Literal["auto", "cpu", "default", "paper"]
PLANE_DISTANCE_MM = 5.0


def setting(default: Any, text: str, *, why: str = "", **limits: Any) -> Any:
    """A field with its one-line help and, for a choice that the paper leaves open, the reason."""
    return Field(default, description=text, json_schema_extra={"why": why} if why else None, **limits)


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # gpus = 0 in TOML
    )


class PreprocessSettings(Section):
    layout: LayoutName = setting("auto", "how the data set's files are laid out; auto recognises it")
    lights: str = setting(
        "auto", "lights to use in data with one image per light, such as 4 or 0,1,2,3,4: one training sample for each; other splits"
        " use only the first",
        why="auto: Eyecandies' image_4 and Real-IAD's L05, which the published figures are based on; the paper counts five",
        pattern=r"^\w+(,\w+)*$")  # fmt: skip
    units: Literal["auto", "m", "cm", "mm", "um"] = setting("auto", "unit of the point clouds and depth images;"
        " auto infers it from their size; with auto and m, 16-bit depth images without a scale are in mm")  # fmt: skip
    foreground: Literal["auto", "table", "border", "whole"] = setting(
        "auto", "the part is what stands on the table, what is in front of the surface at the image's border, or the whole image",
        why="auto: border for Eyecandies, whole for images without points, table for all others")  # fmt: skip
    size: int = setting(256, "side of the square samples in the cache, in pixels (256 in the paper)", ge=32, le=1024,
                        multiple_of=16)  # fmt: skip
    plane_distance_mm: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = setting(
        "auto", "points within this many millimetres of the table are background, or within three times the sensor's noise if that is more;"
        f" auto: {PLANE_DISTANCE_MM:g}, or less for lower parts: a quarter of their height, or half that of their flat side",
        why="the paper's 0.005 m, made for parts of 20 mm and more; it would hide most of a cover, and all of a thin board")  # fmt: skip
    fixture: Literal["ignore", "keep"] = setting(
        "ignore", "what stands on the table in the same place in all captures, while the parts do not, is ignored, or kept as part of them",
        why="parts that lie differently in a fixture cannot be laid on a mean part that has it around it")  # fmt: skip
    depth_axis: Literal["camera", "plane"] = setting(
        "plane", "depth along the camera's optical axis, or straight down to the table plane",
        why="a table tilted from capture to capture tilts the part's camera depth, but not its height")  # fmt: skip
    frame: Literal["part", "image"] = setting(
        "part", "what the square sample shows: a window around the part, of one size for the category, or the whole image",
        why="in a window, the same network sees the part larger: a defect of a few pixels gets twice as many")  # fmt: skip
    scaling: Literal["category", "capture"] = setting(
        "category", "depth range that is scaled to (0, 1): the category's, or each capture's own without half a percent of its points at"
        " either end",
        why="a category's fixed range keeps millimetres comparable: a defect cannot rescale its own part")  # fmt: skip
    headroom: float = setting(
        0.25, "share of the category's depth range that stays free above the tallest part, for bumps", ge=0, le=1,
        why="a bump higher than any good part must not be clipped away")  # fmt: skip

    def plane_distance_m(self) -> float:
        """The distance in metres; under auto, the largest that can be chosen."""
        return (PLANE_DISTANCE_MM if self.plane_distance_mm == "auto" else self.plane_distance_mm) / 1000

    def light_names(self) -> list[str]:
        """The names of the lights; empty for auto."""
        return [] if self.lights == "auto" else self.lights.split(",")


class SynthesisSettings(Section):
    defects: int = setting(
        3, "defects made on a sample, each with its own shape, texture and dropout", ge=1, le=8,
        why="three times the defects to learn from, for a seventh more time",
    )  # fmt: skip
    perlin_scale_max: int = setting(5, "the noise lattice has 2^0 to 2^N cells along each axis", ge=1, le=6,
                                    why="as in DRAEM, which the paper follows")  # fmt: skip
    mask_threshold: float = setting(
        0.5, "t_p of Eq. 1, on noise of unit range; if the noise on the part stays below it, 0.6 of that noise's peak", gt=0, lt=0.9,
        why="DRAEM's value; with both signs it marks 11 % of a sample, and in one of 30 the noise stays below it",
    )  # fmt: skip
    blobs_max: int = setting(
        4, "keep at most this many patches of the mask; 0 keeps the whole mask, as the paper does", ge=0, le=16,
        why="real defects are few and small (0.04 to 0.7 % of an MVTec 3D-AD tire image)",
    )  # fmt: skip
    blob_radius_min: float = setting(0.02, "smallest half length of a patch, as a share of the image side", gt=0, le=1,
        why="a defect of a few pixels must be learnt as well")  # fmt: skip
    blob_radius_max: float = setting(0.15, "largest half length of a patch, as a share of the image side", gt=0, le=1,
        why="gross defects stay in the mix")  # fmt: skip
    blob_aspect_max: float = setting(20.0, "longest patch, as a multiple of its width", ge=1, le=50,
        why="cuts, cracks and scratches are thin")  # fmt: skip
    skew_filter: bool = setting(True, "smooth the mask by the skew Gaussian filter, Eq. 3 to 5 (off: Table 6)")
    alpha_max: float = setting(0.5, "each component of alpha, per pixel, is drawn from U(-a, a)", ge=0, le=5,
        why="without skew, all walls of a defect are equally steep, and fewer defects are found")  # fmt: skip
    sigma_min: float = setting(0.002, "smallest standard deviation of the filter, as a share of the image side", gt=0, le=0.2,
        why="half a pixel at 256: steep walls, as a drilled hole has")  # fmt: skip
    sigma_max: float = setting(0.024, "largest standard deviation of the filter, as a share of the image side; drawn logarithmically along"
        " either axis", gt=0, le=0.2, why="six pixels at 256: soft dents and bumps")  # fmt: skip
    sigma_aspect_max: float = setting(4.0, "largest ratio of the filter's two standard deviations", ge=1, le=20,
        why="a narrower filter smears a patch into a line")  # fmt: skip
    sigma_correlation: float = setting(0.7, "correlation in Sigma of Eq. 4, drawn from U(-c, c)", ge=0, le=0.95,
        why="dents are long in any direction; with 0 and an aspect of 1 Sigma is a multiple of I, as in the paper's Fig. 4")  # fmt: skip
    kernel_norm: Literal["sum", "peak"] = setting(
        "peak",
        "norm() of Eq. 5: kernel of unit sum, or depth change of unit peak",
        why="with unit sum the filter and not p_z decides how deep a small patch becomes",
    )
    strength_min: float = setting(0.04, "p_min of Eq. 6, as a share of the depth range, which Z_a cannot leave; p_z is raised until t_h"
        " leaves something", gt=0, le=1, why="clearly over the sensor's noise; weaker defects teach the network to guess")  # fmt: skip
    strength_max: float = setting(0.6, "p_max of Eq. 6, as a share of the depth range", gt=0, le=1,
        why="a hole through the part")  # fmt: skip
    strength_scale: Literal["log", "uniform"] = setting(
        "log", "distribution of p_z between its bounds", why="most real dents and bumps are shallow"
    )
    change_threshold: float = setting(
        0.012, "t_h of Eq. 7, as a share of the depth range: smaller depth changes of the part do not count", gt=0, le=1,
        why="just over the sensor's noise",
    )  # fmt: skip
    pierced_share: float = setting(
        0.15, "share of defects that reach through the part to the table", ge=0, le=1,
        why="drilled holes and broken edges show the table, which is background",
    )  # fmt: skip
    soft_share: float = setting(
        0.18, "share of defects that are wide and fade out towards their rim: two in three dents or bumps, one in three tints", ge=0, le=1,
        why="bruises and soft dents have no edge, and a network that learns only from edges misses them",
    )  # fmt: skip
    soft_radius_min: float = setting(0.04, "smallest half length of a soft defect, as a share of the image side", gt=0, le=1,
        why="the other defects cover narrower ones")  # fmt: skip
    soft_radius_max: float = setting(0.16, "largest half length of a soft defect, as a share of the image side", gt=0, le=1,
        why="bruises and pressed-in sides reach over a third of a part")  # fmt: skip
    added_share: float = setting(
        0.06, "share of samples to which material is added beside the part or in its holes, unless only RGB is looked at", ge=0, le=1,
        why="defects that only change or remove what is there do not teach a network to notice plugged holes",
    )  # fmt: skip
    cut_share: float = setting(
        0.06, "chance that a piece is broken off a sample, where parts share no shape, unless only RGB is looked at", ge=0, le=1,
        why="smaller defects do not teach a network what is left of a part that it cannot compare with a mean part",
    )  # fmt: skip
    beta_max: float = setting(0.8, "beta of Eq. 8, the share of the part's own colour that stays, is drawn from U(0, b)", ge=0, le=1,
        why="fainter ones help with some parts and harm with others; up to 0.4, without any faint ones, less is found")  # fmt: skip
    dropout: float = setting(
        0.45, "p_d of Eq. 12: chance that a modality keeps its normal image", ge=0, lt=1,
        why="then three fifths of the visible defects show in only one modality, as stains and dents do; with soft ones, seven tenths",
    )  # fmt: skip
    normal_share: float = setting(
        0.4, "share of samples left untouched but for added material, in addition to those that Eq. 12 leaves untouched", ge=0, lt=1,
        why="with a defect in nearly every sample parts are ranked no better, though some defects are outlined better",
    )  # fmt: skip
    rotate: bool = setting(True, "turn the whole sample by a random angle", why="parts lie at any angle")
    flip: bool = setting(False, "mirror the whole sample at random", why="lettering and threads do not come mirrored")
    relight: float = setting(0.2, "how much the light changes from sample to sample, as a share of its brightness", ge=0, lt=1,
        why="a few dozen good parts show too little variation of light, and new light is not a defect")  # fmt: skip
    textures: Path | None = setting(None, "folder of texture images, such as the paper's DTD (default: a built-in set)")
    texture_count: int = setting(
        256, "textures held in memory; from a folder, one crop from each of this many images", ge=1, le=10_000,
        why="50 MB at 256 pixels, on the GPU as well",
    )  # fmt: skip

    def augmentation(self) -> dict[str, Any]:
        """The keyword arguments of `das3d_cli.synthesis.augment.augment`."""
        others = {"defects", "normal_share", "added_share", "cut_share", "rotate", "flip", "relight", "textures",
                  "texture_count"}  # fmt: skip
        return self.model_dump(exclude=others)


class ModelSettings(Section):
    modality: Modality = setting("both", "what the detector looks at")
    size: int = setting(256, "side of the network's input, in pixels; the cache's size or a whole fraction of it", ge=32, le=1024,
        multiple_of=16)  # fmt: skip
    stem: int = setting(
        2, "pixels folded into channels at the discriminator's input, per axis", ge=1, le=2,
        why="the full-resolution layers cost most and see least; folding keeps every pixel",
    )  # fmt: skip
    reconstruction_shrink: int = setting(
        4, "factor by which the reconstruction networks' resolution is lower than the discriminator's: 1, 2 or 4", ge=1, le=4,
        why="at twice the resolution they cost more, and fewer defects are found",
    )  # fmt: skip
    reconstruction_width: int = setting(32, "channels of the reconstruction networks' first layer; 0 leaves them out, for comparison",
        ge=0, le=256, why="four times as wide at the cpu preset detects no better")  # fmt: skip
    discriminator_width: int = setting(48, "channels of the discriminator's first layer", ge=4, le=256,
        why="half of the cpu preset's 32 has no room for soft defects beside scratches")  # fmt: skip
    discriminator_levels: int = setting(
        2, "halvings of the resolution within the discriminator", ge=2, le=4,
        why="with three or four it costs more and detects no more",
    )  # fmt: skip
    direct_inputs: bool = setting(
        True, "show the discriminator the images, their local contrast and residuals in addition to the paper's features",
        why="a dent is a percent of the depth range and a stain a shade; contrast gives both a direct path",
    )  # fmt: skip
    template: bool = setting(
        True, "with the direct inputs, show how the part differs from the mean good part, turned to match it; the reconstruction"
        " networks start from that mean part or, if parts share no shape, from the part's own local mean",
        why="what a rigid part looks like is known before the first step of training",
    )  # fmt: skip

    @property
    def least_size(self) -> int:
        """Input pixels per pixel of the narrowest layer, along each axis: `size` must be a multiple of it."""
        return 16 * self.stem


class LossSettings(Section):
    reconstruction: float = setting(1.0, "weight of Eq. 9 and the L2 part of Eq. 10", ge=0)
    ssim: float = setting(0.3, "weight of the SSIM part of Eq. 10, of images averaged down by model.reconstruction_shrink", ge=0,
        why="at 1 it is most of the loss, and the discriminator learns late")  # fmt: skip
    focal: float = setting(5.0, "weight of Eq. 11", ge=0, why="its mean over a whole image is small beside the others")
    focal_gamma: float = setting(2.0, "focusing exponent of the focal loss", ge=0, why="the focal loss paper's value")
    dice: float = setting(1.0, "weight of the Dice loss on defective samples", ge=0,
        why="small defects weigh as much as large ones; on an empty mask Dice would reward hedging")  # fmt: skip
    false_alarm: float = setting(1.0, "weight of the squared score on good pixels", ge=0,
        why="forbids a low haze over the whole part, by which good parts would be ranked")  # fmt: skip


class TrainSettings(Section):
    steps: int = setting(
        10000, "optimiser steps", ge=1,
        why="2.2 minutes on an H200; wherever trainings of more than 6000 steps were tried, they found more",
    )  # fmt: skip
    batch_size: int = setting(16, "samples per step, on all GPUs together", ge=1, le=1024,
        why="at the cpu preset 4 learn more than 8 in the same time; a GPU has room for more")  # fmt: skip
    accumulate: int = setting(
        1, "micro-batches that a step's samples are split into, one after another, to fit a large batch into a small GPU; batch"
        " normalisation sees one of them at a time, so the result is nearly that of the whole batch", ge=1, le=1024,
    )  # fmt: skip
    lr: float = setting(2e-3, "peak learning rate of the one-cycle schedule (AdamW)", gt=0, le=1,
        why="half of the cpu preset's rate detects no better")  # fmt: skip
    weight_decay: float = setting(1e-2, "AdamW weight decay", ge=0, le=1, why="torch's default; 0 is no better")
    clip: float = setting(1.0, "largest gradient norm", gt=0, why="one wild step must not undo a training")
    validate_every: int = setting(500, "steps between validations (and checkpoints)", ge=1,
        why="the default preset then keeps the best of twenty states, and a run that is killed loses a twentieth")  # fmt: skip
    validation_defects: int = setting(6, "synthetic defective versions of each validation part", ge=1, le=64,
        why="a few hundred samples rank two checkpoints reliably")  # fmt: skip

    @property
    def micro_batch(self) -> int:
        """Samples in one forward pass, on all GPUs together."""
        return self.batch_size // self.accumulate


class ScoreSettings(Section):
    smoothing: float = setting(0.02, "width over which the anomaly map is averaged around each pixel, as a share of the image side",
        ge=0, le=0.5, why="calms single pixels; a wider window erases cracks")  # fmt: skip
    views: int = setting(
        2, "how many times to look at every part, turned by another quarter each time, and average the maps; takes that many"
        " times as long; once if synthesis.rotate is off", ge=1, le=4, why="false alarms move as a part turns, defects stay",
    )  # fmt: skip
    outline: float = setting(
        0.2, "value of the anomaly map at which a defect is outlined and measured; the threshold, if that is lower",
        gt=0, le=1, why="at this value areas come out as people marked them; at 0.5 half as large, at 0.9 a fifth",
    )  # fmt: skip
    good_share: float = setting(
        0.95, "share of good parts that should pass; held-out ones set the threshold, together with up to 64 others if they are too few",
        gt=0, le=1, why="a threshold over every good part seen would miss weak defects; ten parts alone would reject too many",
    )  # fmt: skip


class HardwareSettings(Section):
    gpus: str = setting("auto", "0, or 0,1, or all, or cpu; auto takes the first GPU if there is one. To train, several GPUs share"
        " each batch of one category, or each takes one of several categories; everything else runs on the first GPU",
        pattern=r"^(auto|all|cpu|\d+(,\d+)*)$")  # fmt: skip
    cache_share: float = setting(
        0.5, "share of a GPU's free memory that the good parts may take; if they need more, they stay in main memory, and"
        " each step's parts are fetched ahead", ge=0, le=1, why="the network needs the rest; 250 parts of 256 pixels take 0.1 GB",
    )  # fmt: skip
    cuda_graphs: bool = setting(
        True, "on a single GPU, launch each training step, and each pass of `das3d benchmark`, as one CUDA graph; if that fails,"
        " they run without it",
        why="a step has 1900 kernels, most of them shorter than their launches: as one graph it takes 0.24 to 0.07 of the time",
    )  # fmt: skip
    workers: int = setting(0, "number of parallel processes; 0 means one per core", ge=0, le=256)


class Settings(Section):
    """All settings. preprocess, synth-preview and train can change each one with `--set section.key=value`."""

    preset: Preset = setting(
        "auto",
        "sizes for training on a CPU (cpu) or a GPU (default), or the paper's choices (paper); auto takes cpu if there is no GPU",
    )
    seed: int = setting(0, "seed of training and of the synthetic defects; preprocessing has its own", ge=0, lt=2**31)
    preprocess: PreprocessSettings = PreprocessSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    score: ScoreSettings = ScoreSettings()
    hardware: HardwareSettings = HardwareSettings()

    @property
    def views_taken(self) -> int:
        """How often a part is looked at: once if training did not turn parts, as turned ones are then unknown."""
        return self.score.views if self.synthesis.rotate else 1

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        s, m, t = self.synthesis, self.model, self.train
        for low, high in (("blob_radius_min", "blob_radius_max"), ("sigma_min", "sigma_max"), ("soft_radius_min", "soft_radius_max"),
                          ("strength_min", "strength_max"), ("change_threshold", "strength_max")):  # fmt: skip
            if getattr(s, low) > getattr(s, high):
                raise ValueError(
                    f"synthesis.{low} ({getattr(s, low)}) must not exceed synthesis.{high} ({getattr(s, high)})"
                )
        if t.batch_size % t.accumulate:
            raise ValueError(f"train.accumulate ({t.accumulate}) must divide train.batch_size ({t.batch_size})")
        if not (m.reconstruction_width or m.direct_inputs):
            raise ValueError(
                "model.reconstruction_width 0 needs model.direct_inputs, or the discriminator has no input"
            )
        if m.reconstruction_shrink == 3:
            raise ValueError("model.reconstruction_shrink (3) must be 1, 2 or 4")
        if m.size % m.least_size:
            raise ValueError(f"model.size ({m.size}) must be a multiple of {m.least_size} at model.stem {m.stem}")
        if m.size == m.least_size and t.micro_batch == 1:  # batch normalisation would see a single value
            raise ValueError(f"model.size ({m.size}) must be larger if train.batch_size / train.accumulate is 1")
        return self


def fields(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, pydantic FieldInfo) of every setting."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


FIELDS = dict(fields())

# Settings that a detector's verdicts depend on.
JUDGING = tuple(
    key for key in FIELDS if key.startswith(("preprocess.", "model.", "score.")) or key == "synthesis.rotate"
)

# Prefixes of keys that do not tell two trainings apart: a preset's settings are compared key by key, and hardware
# changes no figure.
IDLE = ("preset", "hardware.")
SEED = "seed"
# A resumed run may change these: memory and speed depend on them, but hardly what is learnt.
ADAPTABLE = ("train.accumulate", *(key for key in FIELDS if key.startswith("hardware.")))
