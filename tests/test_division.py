"""Modules of the user whose batches may be divided among devices: what couples their examples is found by trying."""

import textwrap

import pytest

from cnnjax.errors import InputError
from cnnjax.models.division import is_divisible
from cnnjax.models.own_module import ModuleConfig

MODULE = """
    import flax.linen as nn
    import jax
    import jax.numpy as jnp


    class Net(nn.Module):
        classes: int

        @nn.compact
        def __call__(self, images, train: bool = False):
            x = nn.Dense(8)(images.reshape(len(images), -1))
            {body}
            return nn.Dense(self.classes)(nn.relu(x))
"""
OWN_STATISTICS = """
            mean = self.variable("batch_stats", "mean", jnp.zeros, 8)
            if train:
                mean.value = 0.9 * mean.value + 0.1 * x.mean(0)
            x = x - mean.value
"""
COUNTER = """
            count = self.variable("counters", "calls", jnp.zeros, (), jnp.int32)
            count.value += train
"""
DIVISIBLE = {
    "plain": "pass",
    "batch normalisation": "x = nn.BatchNorm(use_running_average=not train)(x)",
    "batch normalisation over another axis": "x = nn.BatchNorm(use_running_average=not train, axis_name='model')(x)",
    "dropout": "x = nn.Dropout(0.5, deterministic=not train)(x)",
    "dropout of features of the whole batch": "x = nn.Dropout(0.5, broadcast_dims=(0,), deterministic=not train)(x)",
    "a draw for the whole batch": "x = x * jax.random.bernoulli(self.make_rng('dropout')) if train else x",
    "a mean loss": "self.sow('losses', 'size', (x**2).mean())",
    "a counter": COUNTER.strip(),
}
COUPLED = {
    "a mean over the batch": "x = x - x.mean(0)",
    "a difference of neighbours": "x = x - jnp.roll(x, 1, 0)",
    "noise of each example": "x = x + jax.random.normal(self.make_rng('dropout'), x.shape) if train else x",
    "dropout across examples": "x = nn.Dropout(0.5, deterministic=not train)(x.T).T",
    "a sum as a loss": "self.sow('losses', 'size', (x**2).sum())",
    "statistics of its own": OWN_STATISTICS.strip(),
    "a batch of one size": "assert len(x) == 8",
    "rows of a batch of this size": "x = x.reshape(2, -1, 8)[:, ::-1].reshape(-1, 8)",
}


def read(tmp_path, monkeypatch, body):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(textwrap.dedent(MODULE.format(body=body)))
    return ModuleConfig.from_dict({"module": "nets.py:Net"})


@pytest.mark.parametrize("body", DIVISIBLE.values(), ids=DIVISIBLE)
def test_shares_of_a_batch_that_give_the_same_as_the_whole_may_be_divided(tmp_path, monkeypatch, body):
    assert is_divisible(read(tmp_path, monkeypatch, body), (4, 4, 1), 10)


@pytest.mark.parametrize("body", COUPLED.values(), ids=COUPLED)
def test_a_module_that_couples_examples_by_itself_may_not_be_divided(tmp_path, monkeypatch, body):
    assert not is_divisible(read(tmp_path, monkeypatch, body), (4, 4, 1), 10)


def test_an_edited_module_is_an_error_and_not_one_that_couples_examples(tmp_path, monkeypatch):
    config = read(tmp_path, monkeypatch, "x = x + 1")
    (tmp_path / "nets.py").write_text(textwrap.dedent(MODULE.format(body="x = x + 2")))
    with pytest.raises(InputError, match=r"nets\.py"):
        is_divisible(config, (4, 4, 1), 10)
