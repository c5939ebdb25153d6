"""A result may depend on (seed, step, item) and on nothing else."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from das3d_cli.synthesis.random import ItemRandom


def test_an_item_draws_the_same_numbers_wherever_it_stands():
    together = ItemRandom.of(3, 7, torch.tensor([5, 1, 9]))
    alone = ItemRandom.of(3, 7, torch.tensor([9]))
    assert torch.equal(together.uniform(4)[2:], alone.uniform(4))
    assert torch.equal(together.integers(2, high=10)[2:], alone.integers(2, high=10))


def test_forks_together_are_the_forks():
    parent = ItemRandom.of(0, 0, torch.arange(3))
    for label, drawn in enumerate(parent.forks(4).uniform(5).view(4, 3, 5)):
        assert torch.equal(parent.fork(label).uniform(5), drawn)
    for label, stream in enumerate(parent.split(4)):
        assert torch.equal(parent.fork(label).uniform(100), stream.uniform(100))
        assert torch.equal(parent.fork(label).fork(1).uniform(3), stream.fork(1).uniform(3))


def test_one_label_for_all_is_the_label_of_each():
    parent = ItemRandom.of(0, 0, torch.arange(3))
    assert torch.equal(parent.fork(5).uniform(4), parent.fork(torch.full((3,), 5)).uniform(4))


def test_the_number_does_not_depend_on_how_many_are_drawn_at_once():
    a, b = (ItemRandom.of(0, 0, torch.tensor([0])) for _ in range(2))
    assert torch.equal(a.uniform(6), torch.cat((b.uniform(2), b.uniform(4)), dim=1))


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_step_and_index_each_change_the_stream(other):
    seed, step, index = other
    assert not torch.equal(
        ItemRandom.of(0, 0, torch.tensor([0])).uniform(4), ItemRandom.of(seed, step, torch.tensor([index])).uniform(4)
    )


def test_forks_differ_and_leave_their_parent_where_it_was():
    parent, twin = (ItemRandom.of(0, 0, torch.tensor([0])) for _ in range(2))
    one, two = parent.fork(0).uniform(4), parent.fork(1).uniform(4)
    assert not torch.equal(one, two)
    assert torch.equal(parent.uniform(4), twin.uniform(4))


def test_no_fork_is_made_of_what_its_parent_draws():
    parent = ItemRandom.of(0, 0, torch.arange(3))
    for label, drawn in enumerate(parent.uniform(8).T):
        assert not torch.equal(((parent.fork(label)._keys >> 40) & (2**24 - 1)) * 2.0**-24, drawn)


def test_uniform_is_uniform_within_and_across_items():
    draws = ItemRandom.of(0, 0, torch.arange(300)).uniform(300)
    assert stats.kstest(draws.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(draws[:, 0].numpy(), "uniform").pvalue > 1e-3
    neighbours = torch.corrcoef(torch.stack((draws[:-1].flatten(), draws[1:].flatten())))[0, 1]
    assert abs(neighbours) < 0.02


def test_ranges_and_shares():
    random = ItemRandom.of(0, 0, torch.arange(2000))
    whole = random.integers(3, high=5)
    assert whole.unique().tolist() == [0, 1, 2, 3, 4]
    logs = random.log_uniform(low=0.01, high=1.0)
    assert logs.min() >= 0.01 and logs.max() < 1.0
    assert (logs < 0.1).float().mean() == pytest.approx(0.5, abs=0.05)
    assert random.bernoulli(probability=0.3).float().mean() == pytest.approx(0.3, abs=0.05)
