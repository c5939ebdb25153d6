"""Which device is chosen, and in which precision it computes."""

from __future__ import annotations

import pytest
import torch

from das3d_cli.device import autocast, choose
from das3d_cli.errors import UsageError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("able", "training", "dtype"),
    [
        ({"avx512_bf16": True}, True, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, True, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, True, torch.float32),
        ({}, True, torch.float32),
        ({"avx512_bf16": True, "amx_bf16": True}, False, torch.float32),  # a verdict must not depend on the processor
    ],
)
def test_a_cpu_computes_in_bfloat16_in_training_alone_and_only_natively(monkeypatch, able, training, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    images, network = torch.zeros(1, 3, 8, 8), torch.nn.Conv2d(3, 4, 3)
    with autocast(CPU, training=training):
        assert network(images).dtype == dtype


@pytest.mark.parametrize("gpus", ["cuda", "", "1.5", "cpu,0", None, -1])
def test_what_is_no_device_is_said_in_one_line(gpus):
    with pytest.raises(UsageError, match="not a device; use auto, all, cpu, or numbers"):
        choose(gpus)


def test_a_gpus_number_may_be_a_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose(1) == torch.device("cuda", 1)
