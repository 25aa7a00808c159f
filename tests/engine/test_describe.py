"""The table of which parameter gets which values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxopt_core as jo

PARAMS = {
    "embed": {"table": jnp.ones((10, 4))},
    "layers": [{"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)} for _ in range(5)],
    "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
}


def warm_up(count: Any) -> Any:
    return 0.1 * jnp.float32(count)


def test_groups_of_one_optimizer():
    tx = jo.adamw(
        lr=jo.by_path({"embed": 1e-4, "head": warm_up}, default=jnp.float32(1e-3)),
        weight_decay=jo.by_path({"bias$": 0.0}, default=0.01),
    )
    text = str(jo.describe(tx, PARAMS))
    assert text.splitlines() == [
        "AdamW: betas=(0.9, 0.999), eps=1e-08, amsgrad=False, maximize=False, decoupled_weight_decay=True",
        "       lr  weight_decay  tensors  elements  parameters",
        "   0.0001          0.01        1        40  embed/table",
        "  warm_up             0        1         2  head/bias",
        "  warm_up          0.01        1         8  head/kernel",
        "    0.001             0        5        20  "
        "layers/0/bias, layers/1/bias, layers/2/bias, ... layers/4/bias",
        "    0.001          0.01        5        80  "
        "layers/0/kernel, layers/1/kernel, layers/2/kernel, ... layers/4/kernel",
    ]


def test_every_element_is_counted_once():
    groups = jo.describe(jo.adam(lr=jo.by_path({"bias": 1.0}, default=2.0)), PARAMS).groups
    assert sum(group.size for group in groups) == sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    assert [len(group.shapes) for group in groups] == [7, 6]


def test_partition_with_a_frozen_part():
    labels = jo.by_path({"^embed": "frozen", r"layers/\d+/kernel": "muon"}, default="adamw").tree
    tx = optax.chain(
        optax.clip(1.0),
        optax.partition({"frozen": optax.set_to_zero(), "muon": jo.muon(), "adamw": jo.adamw()}, labels),
    )
    groups = jo.describe(tx, PARAMS).groups
    found = {group.optimizer: list(group.shapes) for group in groups}
    assert list(found)[-1] is None
    assert found[None] == ["embed/table"]
    assert found["Muon"] == [f"layers/{i}/kernel" for i in range(5)]
    assert {"layers/0/bias", "head/kernel"} <= set(found["AdamW"])
    assert "Not updated by any optimizer" in str(jo.describe(tx, PARAMS))


def test_two_optimizers_of_one_kind_stay_apart():
    labels = jo.by_path({"^embed": "slow"}, default="fast").tree
    tx = optax.partition({"slow": jo.sgd(lr=0.1), "fast": jo.sgd(lr=0.1)}, labels)
    assert len(jo.describe(tx, PARAMS).groups) == 2


def test_nothing_is_computed():
    huge = {"w": jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)}
    assert "1,099,511,627,776" in str(jo.describe(jo.adamw(), huge))


def test_lbfgs_and_bucketed():
    assert "LBFGS: lr=1" in str(jo.describe(jo.lbfgs(), PARAMS))
    assert "AdamW: lr=0.001" in str(jo.describe(jo.bucketed(jo.adamw()), PARAMS))


def test_a_typo_is_an_error():
    with pytest.raises(ValueError, match="by_path pattern 'kernal' of lr matches no parameter"):
        jo.describe(jo.sgd(lr=jo.by_path({"kernal": 0.1}, default=0.2)), PARAMS)
    with pytest.raises(ValueError, match="by_path pattern 'kernal' of by_path"):
        jo.by_path({"kernal": "a"}, default="b").tree(PARAMS)


def test_only_what_is_described_is_noted():
    jo.sgd().init(PARAMS)
    assert len(jo.describe(jo.adam(), PARAMS).groups) == 1
