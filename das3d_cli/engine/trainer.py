"""Train one category: the joint loop of section 3.3, its validation, and its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from das3d_cli import __version__, losses, runs
from das3d_cli.batch import Batch, Parts
from das3d_cli.device import autocast, make_ready, short_of_memory, within_memory
from das3d_cli.engine import checkpoint, distributed
from das3d_cli.engine.ahead import Ahead
from das3d_cli.engine.feed import Feed, batch_indices
from das3d_cli.engine.interrupt import deferred_interrupt
from das3d_cli.engine.samples import Data, synthesised
from das3d_cli.engine.validation import validate
from das3d_cli.errors import DataError
from das3d_cli.files import to_json
from das3d_cli.model import Das3d, Output
from das3d_cli.settings import LossSettings, Settings
from das3d_cli.synthesis.augment import Augmented
from das3d_cli.template import Template

_REPORT_EVERY = 20  # steps between lines of metrics.jsonl
_WARM_UP = 0.1  # share of the steps in which the learning rate rises

Progress = Callable[[int, dict[str, float]], None]
Samples = list[tuple[Batch, Augmented]]  # per micro-batch: good parts, turned and relit; their augmented versions


class Trainer:
    """The state of one training, and the steps that advance it.

    Several processes may share one training (see `distributed`); only the first one writes and reports.

    Args:
        settings: resolved settings; their preprocessing is that of the data.
        data: textures on the device to train on; parts there or in main memory.
        identity: what the model file must record besides the settings: category, preprocessing.
        run: the run folder to write to.
    """

    def __init__(self, settings: Settings, data: Data, identity: dict[str, Any], run: Path) -> None:
        self.settings, self.data, self.identity, self.run = settings, data, identity, run
        self.device = data.textures.device
        make_ready(self.device)
        torch.manual_seed(settings.seed)
        self.network = Das3d(**settings.model.model_dump()).to(self.device)
        if (template := self.network.template) is not None and distributed.size() == 1:
            template.learn(*data.train)
        elif template is not None:
            # Others might find another number of mean parts, which would stop the training.
            template.load_state_dict(distributed.from_first(lambda: _learnt(template, data.train)))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parallel = distributed.parallel(self.network)
        self._as_graph = settings.hardware.cuda_graphs and self.device.type == "cuda" and distributed.size() == 1
        # A recorded step can read changing values only from the GPU.
        self._learning_rate = (
            torch.tensor(settings.train.lr, device=self.device) if self._as_graph else settings.train.lr
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self._learning_rate, weight_decay=settings.train.weight_decay, fused=True,
            capturable=self._as_graph,
        )  # fmt: skip
        self._work = Ahead(self._make, self._learn, self._inputs) if self._as_graph else self._one_by_one
        # Indices of this process's samples in a batch; the copy on the device selects each sample's random numbers.
        self._own = distributed.own_places(settings.train.batch_size, settings.train.accumulate)
        self._places = self._own.to(self.device)
        self.feed = Feed(data.train, self.device, self._indices)
        self.step = 0
        self.best: dict[str, Any] = {}
        self.interrupted = False

    def fit(self, progress: Progress) -> None:
        """Train to the end. Ctrl-C stops after the current step, with a checkpoint; a second one stops at once.

        In the last step there is nothing left to stop: then Ctrl-C only sets `interrupted`.

        Raises:
            DataError: loss or weights are no longer finite, memory is too small, or a checkpoint cannot be written.
            KeyboardInterrupt: interrupted.
        """
        total = self.settings.train.steps
        advice = self._memory_advice()
        noted: list[dict[str, Tensor]] = []
        started, started_at = time.perf_counter(), self.step
        with deferred_interrupt() as interrupted:
            while self.step < total:
                with within_memory(self.device, advice):
                    noted.append(self._advance())
                self.step += 1
                due = self.step % self.settings.train.validate_every == 0 or self.step == total
                if self.step % _REPORT_EVERY == 0 or due:
                    means = self._means(noted)  # waits until a GPU has done the steps, before the time is taken
                    seconds = time.perf_counter() - started
                    rate = (self.step - started_at) * self.settings.train.batch_size / seconds
                    self._report(means | {"images_per_second": rate}, progress)
                    noted.clear()
                if due:
                    with within_memory(self.device, advice):
                        self._validate(progress)
                self.interrupted = distributed.any_of(interrupted())
                if self.interrupted and self.step < total:
                    self.save_state()
                    distributed.wait_for_all()  # else the launcher would end a process still writing when another exits
                    raise KeyboardInterrupt

    def _advance(self) -> dict[str, Tensor]:
        """One optimiser step; returns the losses without waiting for the device."""
        s = self.settings.train
        self._set_learning_rate(learning_rate(self.step, s.steps, s.lr))
        return self._work(self.step)

    def _set_learning_rate(self, rate: float) -> None:
        if isinstance(self._learning_rate, Tensor):
            self._learning_rate.fill_(rate)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate if isinstance(self._learning_rate, Tensor) else rate

    def _one_by_one(self, step: int) -> dict[str, Tensor]:
        return self._learn(self._make(*self._inputs(step)))

    def _inputs(self, step: int) -> tuple[Tensor, ...]:
        """This process's good parts of a step, and the step's number, on the device."""
        return *self.feed.batch(step), torch.full((), step, device=self.device)

    def _make(self, rgb: Tensor, depth: Tensor, foreground: Tensor, parallax: Tensor, step: Tensor) -> Samples:
        """The samples that a step learns from, in equal micro-batches."""
        batch, s = Batch(rgb, depth, foreground, parallax), self.settings
        return [
            synthesised(*some, step, self.data.textures, s, s.synthesis.normal_share, compared=self.network.compares)
            for some in self._micro_batches(batch)
        ]

    def _learn(self, parts: Samples) -> dict[str, Tensor]:
        """One optimiser step, entirely on the device; returns the losses."""
        s = self.settings
        good = distributed.mean(torch.stack([(1 - augmented.mask).sum() for _, augmented in parts]).mean())
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        noted = []
        for number, (normal, augmented) in enumerate(parts, 1):
            with distributed.unshared(self.parallel, number < len(parts)):
                with autocast(self.device, training=True):
                    output = self.parallel(
                        augmented.rgb, augmented.depth, augmented.foreground.float(), normal.parallax
                    )
                terms = loss_terms(
                    output, normal, augmented.mask, s.loss.focal_gamma, good, s.model.reconstruction_shrink
                )
                loss = total_loss(terms, s.loss)
                (loss / len(parts)).backward()  # type: ignore[no-untyped-call]
            noted.append({"loss": loss.detach()} | {name: value.detach() for name, value in terms.items()})
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.train.clip)
        self.optimizer.step()
        return {name: torch.stack([record[name] for record in noted]).mean() for name in noted[0]}

    def _memory_advice(self) -> str:
        s = self.settings.train
        if s.micro_batch > distributed.size():
            share = s.batch_size // distributed.size()
            more = next(n for n in range(s.accumulate + 1, share + 1) if share % n == 0)
            graphs = ", or with --set hardware.cuda_graphs=false" if self._as_graph else ""
            return (
                f"at batch size {s.batch_size}; continue with --resume {self.run} --set train.accumulate={more} and the same --data and"
                f" --gpus{graphs}, or train again with a lower --batch-size"
            )
        width = self.settings.model.discriminator_width
        return f"with one part at a time; train again with --set model.discriminator_width below {width}"

    def _indices(self, step: int) -> Tensor:
        s = self.settings
        found = batch_indices(s.seed, step, s.train.batch_size, len(self.data.train))
        return torch.from_numpy(found)[self._own]

    def _micro_batches(self, batch: Batch) -> Iterator[tuple[Batch, Tensor]]:
        """The step's good parts and their indices in its batch, in equal micro-batches."""
        portion = len(self._places) // self.settings.train.accumulate
        for *some, where in zip(*(torch.split(tensor, portion) for tensor in (*batch, self._places)), strict=True):
            yield Batch(*some), where

    def _means(self, noted: list[dict[str, Tensor]]) -> dict[str, float]:
        """Mean losses over some steps and all processes. Raises DataError: the loss is not finite."""
        found = torch.stack([torch.stack([record[name] for record in noted]).mean() for name in noted[0]])
        means: dict[str, float] = dict(zip(noted[0], distributed.mean(found).tolist(), strict=True))
        if not np.isfinite(means["loss"]):
            raise self._diverged(f"the loss became {means['loss']}")
        return means

    def _report(self, values: dict[str, float], progress: Progress) -> None:
        if distributed.is_first():
            runs.append_metrics(self.run, {"step": self.step, **values})
            progress(self.step, values)

    def _validate(self, progress: Progress) -> None:
        self._check_weights()
        found = validate(self.network, self.data.validation, self.data.train, self.data.textures, self.settings)
        if found is None:
            return
        told = found | {"highest": self.data.names[int(found["highest"])]}
        runs.append_metrics(self.run, {"step": self.step, "validation": told})
        if not self.best or found["quality"] >= self.best["quality"]:
            self.best = {"step": self.step, **told}
        self.save_state()
        self._save_model()
        progress(self.step, found)

    def _check_weights(self) -> None:
        """Check that the weights are finite before saving them: the loss only reflects the weights before its step."""
        if not torch.stack([value.isfinite().all() for value in self.network.state_dict().values()]).all():
            raise self._diverged("the weights became infinite")

    def _diverged(self, what: str) -> DataError:
        return DataError(
            f"{self.run}: {what} at step {self.step}; the last checkpoint is kept:"
            " train again with a lower --set train.lr"
        )

    def _save_model(self) -> None:
        """Write checkpoints/best.pt if the current weights are the best; last.pt must have been written before.

        If the process dies in between, `restore` makes up for it: last.pt of the same step holds the same weights.
        """
        if self.best and self.best["step"] == self.step:
            checkpoint.save(self.run / runs.BEST, self._model_file())

    def _model_file(self) -> dict[str, Any]:
        """Everything a detector needs."""
        return {
            **self.identity,
            "das3d": __version__,
            "settings": to_json(self.settings.model_dump(mode="json")),
            "network": self.network.state_dict(),
            "threshold": self.best["threshold"],
            "step": self.best["step"],
            "seen": list(self.data.fingerprints),
        }

    def save_state(self) -> None:
        """Write checkpoints/last.pt, from which `restore` continues."""
        self._check_weights()
        if not distributed.is_first():
            return
        state = {
            **self.identity,
            "settings": to_json(self.settings.model_dump(mode="json")),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
        }
        checkpoint.save(self.run / runs.LAST, state)

    @staticmethod
    def read_state(run: Path) -> dict[str, Any]:
        """Read checkpoints/last.pt.

        Raises:
            DataError: the run has none yet, or it is damaged.
        """
        path = run / runs.LAST
        if not path.is_file():
            raise DataError(
                f"{run}: no checkpoint here, as the training stopped before its first one; delete this folder and train again"
            )
        return checkpoint.load(path)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that `read_state` returned; to be called before the first step.

        Raises:
            DataError: the state does not fit the run's settings.
            RuntimeError, MemoryError: memory is too small.
        """
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:
                group["capturable"] = self._as_graph  # the state may come from another device
            self.step, self.best = state["step"], state["best"]
        except (KeyError, ValueError, RuntimeError) as error:
            if short_of_memory(error):
                raise
            raise DataError(f"{self.run}: the checkpoint does not fit the run's settings; train again") from None
        if distributed.is_first():
            runs.truncate_metrics(self.run, self.step)
            self._save_model()


def loss_terms(
    output: Output, normal: Batch, mask: Tensor, gamma: float, good: Tensor, shrink: int
) -> dict[str, Tensor]:
    """The unweighted terms of Eq. 13 and of the two additional losses, scalars.

    Args:
        good: number of good pixels; for a batch split into equal parts, their mean number.
        shrink: as for `losses.ssim_loss`.
    """
    zero = mask.new_zeros(())
    probability = output.logits.float().softmax(dim=1)[:, 1:]
    return {
        "reconstruct_depth": zero if output.depth is None else losses.reconstruction_loss(output.depth, normal.depth),
        "reconstruct_rgb": zero if output.rgb is None else losses.reconstruction_loss(output.rgb, normal.rgb),
        "ssim": zero if output.rgb is None else losses.ssim_loss(output.rgb, normal.rgb, shrink),
        "focal": losses.focal_loss(output.logits, mask, gamma),
        "dice": losses.dice_loss(probability, mask),
        "false_alarm": losses.false_alarm_loss(probability, mask, good),
    }


def total_loss(terms: dict[str, Tensor], weights: LossSettings) -> Tensor:
    """Eq. 13 and the two additional losses, with the settings' weights."""
    return (
        weights.reconstruction * (terms["reconstruct_depth"] + terms["reconstruct_rgb"])
        + weights.ssim * terms["ssim"]
        + weights.focal * terms["focal"]
        + weights.dice * terms["dice"]
        + weights.false_alarm * terms["false_alarm"]
    )


def learning_rate(step: int, steps: int, peak: float) -> float:
    """One cycle: up from 1/25 of the peak over the first tenth of the steps, then down to zero along a cosine."""
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return peak * (0.04 + 0.96 * step / warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _learnt(template: Template, train: Parts) -> dict[str, Tensor]:
    """The state, in main memory, of a template that has learnt from these parts."""
    template.learn(*train)
    return {name: value.cpu() for name, value in template.state_dict().items()}
