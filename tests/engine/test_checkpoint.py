"""A run that is saved and restored with Orbax goes on to the same bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_core as jo
from tests.engine.cases import assert_equal, make


def halving(count: jax.Array) -> jax.Array:
    return jnp.exp2(-count.astype(jnp.float32))


class Plateau:
    """A stateful schedule with a memory of two numbers."""

    def init(self) -> Any:
        return {"best": jnp.float32(jnp.inf), "bad": jnp.zeros([], jnp.int32)}

    def update(self, state: Any, *, value: Any, **extra: Any) -> Any:
        del extra
        return {
            "best": jnp.minimum(state["best"], value),
            "bad": state["bad"] + (value > state["best"]).astype(jnp.int32),
        }

    def __call__(self, state: Any, **extra: Any) -> Any:
        del extra
        return 0.5 ** state["bad"].astype(jnp.float32)


BY_PATH = {
    "lr": jo.by_path({r"(bias|scale)$": 0.5, "^dense/kernel$": halving}, default=Plateau()),
    "betas": jo.by_path({"bias": (jnp.asarray(0.5), 0.75)}, default=(0.75, lambda count: 0.9375)),
    "weight_decay": jo.by_path({r"^(out|dense)/k\w+": jnp.asarray(0.25)}, default=0.0),
}
LABELS = {
    "dense": {"kernel": "matrix", "bias": "rest"},
    "out": {"kernel": "matrix", "bias": "rest"},
    "scale": "rest",
}
CASES: dict[str, Any] = {
    "by_path": lambda: jo.adamw(**BY_PATH),
    "scheduled": lambda: jo.nadam(lr=Plateau(), momentum_decay=halving),
    "partition": lambda: optax.partition(
        {"matrix": jo.muon(lr=jnp.asarray(0.125)), "rest": jo.adafactor(lr=halving)}, LABELS
    ),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), make("adam", amsgrad=True)),
    "adafactor": lambda: make("adafactor"),
    "asgd": lambda: make("asgd"),
    "sgd": lambda: jo.sgd(momentum=jnp.asarray(0.5), dampening=0.25),
}


def params() -> Any:
    rng = np.random.default_rng(0)
    shapes = {
        "dense": {"kernel": (4, 3), "bias": (3,)},
        "out": {"kernel": (4, 3), "bias": (3,)},
        "scale": (3,),
    }
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s), jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def advance(tx: Any, params: Any, state: Any, steps: range) -> tuple[Any, Any]:
    for t in steps:
        grads = jax.tree.map(lambda p: jnp.sin(p * (t + 1)), params)  # noqa: B023
        updates, state = tx.update(grads, state, params, value=jnp.float32(t))
        params = jo.apply_updates(params, updates)
    return params, state


def saved(tree: Any, path: Any) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def restored(target: Any, path: Any) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, target)


def assert_goes_on(tx: Any, middle: Any, back: Any) -> None:
    assert_equal(back, middle)
    assert jax.tree.map(lambda x: x.weak_type, back) == jax.tree.map(lambda x: x.weak_type, middle)
    assert_equal(advance(tx, *back, range(3, 5)), advance(tx, *middle, range(3, 5)))
    read = [jo.read_hyperparams(state) for _, state in (back, middle)]
    assert_equal(*read)


@pytest.mark.parametrize("case", CASES)
def test_save_and_restore(case, tmp_path):
    tx = CASES[case]()
    start = params()
    middle = advance(tx, start, tx.init(start), range(3))
    saved(middle, tmp_path / "checkpoint")
    # What a new process has: the constructor's arguments and the shapes.
    target = jax.eval_shape(lambda: (start, CASES[case]().init(start)))
    assert_goes_on(tx, middle, restored(target, tmp_path / "checkpoint"))


def test_a_count_for_every_parameter(tmp_path):
    tx = make("adamw")
    start = params()
    state = tx.init(start)
    grads = start | {"scale": None}
    updates, state = tx.update(grads, state, start)
    middle = jo.apply_updates(start, updates), state
    saved(middle, tmp_path / "checkpoint")
    target = jax.eval_shape(lambda: (start, jo.count_per_parameter(tx.init(start), start)))
    assert_goes_on(tx, middle, restored(target, tmp_path / "checkpoint"))


def test_onto_other_devices(tmp_path):
    tx = CASES["by_path"]()
    start = params()
    middle = advance(tx, start, tx.init(start), range(3))
    saved(middle, tmp_path / "checkpoint")
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))

    def place(leaf: Any) -> Any:
        spec = P("data") if leaf.shape[:1] == (4,) else P()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    back = restored(jax.tree.map(place, middle), tmp_path / "checkpoint")
    assert_equal(jax.device_get(back), jax.device_get(middle))
    slot = back[1].slots["exp_avg"]["dense"]["kernel"]
    assert slot.sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 2)


def test_the_state_of_another_optimizer_is_refused(tmp_path):
    start = params()
    saved(make("adam").init(start), tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=r"momentum_buffer|square_avg|exp_avg"):
        restored(jax.eval_shape(make("rmsprop").init, start), tmp_path / "checkpoint")
