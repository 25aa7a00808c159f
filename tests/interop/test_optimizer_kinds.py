"""Optimizers whose state is not a slot for each element, or that see matrices; and what they refuse."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core import interop
from tests.interop.closeness import assert_close, assert_same
from tests.interop.problem import CORRESPONDENCE, Problem, rows, run_ours
from tests.interop.torch_runs import Run

pytestmark = pytest.mark.usefixtures("x64")

MATRICES = ["head.0.weight", "embed.weight"]


def test_muon() -> None:
    problem = Problem(MATRICES)
    arguments = {"lr": 0.02}
    theirs = Run("Muon", problem.start, arguments).steps(problem.gradients, range(20))
    params = problem.tree(theirs.params())
    layout = interop.make_layout(params, problem.shapes())
    tx = jo.muon(**arguments, axes=layout.torch_axes())
    state = interop.optimizer_from_torch(tx, theirs.state_dict(), layout, params)
    assert_same(
        interop.optimizer_to_torch(tx, state, layout, params, like=theirs.state_dict()), theirs.state_dict()
    )
    params, state = run_ours(problem, tx, params, state, range(20, 40))
    theirs.steps(problem.gradients, range(20, 40))
    # It rounds to bfloat16, where a last bit may fall on the other side: a step of 0.02 * 2**-8.
    assert_close(interop.params_to_torch(params, layout), theirs.params(), 1e-3)
    with pytest.raises(
        interop.LayoutError, match=r"axes of 'head/0/kernel': tx has None, and by the layout it is \(1, 0\)"
    ):
        interop.optimizer_from_torch(jo.muon(**arguments), theirs.state_dict(), layout, params)


def test_sparse_adam() -> None:
    problem = Problem(["embed.weight"])

    def gradient(time: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(time)
        return rng.integers(0, 5, 3), rng.normal(size=(3, 2))

    def gradients(time: int, params: Any) -> Any:
        del params
        return {"embed.weight": gradient(time)}

    theirs = Run("SparseAdam", problem.start, {"lr": 0.01}).steps(gradients, range(20))
    params = problem.tree(theirs.params())
    layout = interop.make_layout(params, problem.shapes())
    tx = jo.sparse_adam(lr=0.01)
    state = interop.optimizer_from_torch(tx, theirs.state_dict(), layout, params)
    assert_same(
        interop.optimizer_to_torch(tx, state, layout, params, like=theirs.state_dict()), theirs.state_dict()
    )
    update = jax.jit(tx.update)
    for time in range(20, 40):
        grads = {"embed": {"embedding": rows(*gradient(time), (5, 2))}}
        updates, state = update(grads, state, params)
        params = jo.apply_updates(params, updates)
    theirs.steps(gradients, range(20, 40))
    assert_close(interop.params_to_torch(params, layout), theirs.params(), 1e-12)
    assert_close(
        interop.optimizer_to_torch(tx, state, layout, params), without_flags(theirs.state_dict()), 1e-12
    )


def without_flags(state_dict: Any) -> Any:
    (group,) = state_dict["param_groups"]
    return {**state_dict, "param_groups": [{**group, "param_names": ["embed.weight"]}]}


NAMES = ["stem.weight", "head.0.weight", "filters"]


def loss(module: Any, tensors: Any) -> Any:
    """Coupled and not quadratic, in operations that torch and jax.numpy share."""
    del module
    total = 0.0
    for i, name in enumerate(NAMES):
        x = tensors[name]
        residual = x - (0.3 + 0.1 * i)
        square = (residual * residual.conj()).real
        total = total + (square * (1 + 0.5 * i)).sum() + 0.1 * (square * square).sum()
    return total + 0.2 * (tensors["head.0.weight"].sum() * tensors["stem.weight"].sum()) ** 2


def loss_here(problem: Problem) -> Any:
    def value(params: Any) -> Any:
        flat = {
            jax.tree_util.keystr(p, simple=True, separator="/"): leaf
            for p, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
        }
        tensors = {n: flat[CORRESPONDENCE[n][1]].transpose(np.argsort(CORRESPONDENCE[n][2])) for n in NAMES}
        return loss(jnp, tensors)

    del problem
    return jax.value_and_grad(value)


@pytest.mark.parametrize(("line_search_fn", "before"), [(None, 1), ("strong_wolfe", 3)])
def test_lbfgs(line_search_fn: str | None, before: int) -> None:
    arguments = {"lr": 0.02, "max_iter": 2, "history_size": 4, "line_search_fn": line_search_fn}
    problem = Problem(NAMES)
    theirs = Run("LBFGS", problem.start, arguments).minimize(loss, before)
    checkpoint = theirs.state_dict()
    params = problem.tree(theirs.params())
    layout = interop.make_layout(params, problem.shapes())
    tx = jo.lbfgs(**arguments)
    state = interop.optimizer_from_torch(tx, checkpoint, layout, params)
    assert_close(interop.optimizer_to_torch(tx, state, layout, params, like=checkpoint), checkpoint, 0)

    value_and_grad = loss_here(problem)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, grads = value_and_grad(params)
        updates, state = tx.update(grads, state, params, value=value, value_and_grad_fn=value_and_grad)
        return jo.apply_updates(params, updates), state

    for _ in range(3):
        params, state = step(params, state)
    theirs.minimize(loss, 3)
    there = interop.params_to_torch(params, layout)
    state_dict = interop.optimizer_to_torch(tx, state, layout, params, like=checkpoint)
    assert_close(there, theirs.params(), 1e-12)
    assert_close(state_dict, theirs.state_dict(), 1e-9)  # quotients of small differences
    back = Run("LBFGS", problem.start, arguments).load(state_dict, there).minimize(loss, 3)
    assert_close(back.params(), theirs.minimize(loss, 3).params(), 1e-12)


def test_lbfgs_before_and_at_its_first_step() -> None:
    arguments = {"history_size": 4}
    problem = Problem(NAMES)
    run = Run("LBFGS", problem.start, arguments)
    params = problem.tree(problem.start)
    layout = interop.make_layout(params, problem.shapes())
    tx = jo.lbfgs(**arguments)
    fresh = interop.optimizer_from_torch(tx, run.state_dict(), layout, params)
    jax.tree.map(np.testing.assert_array_equal, fresh, tx.init(params))
    assert_same(
        interop.optimizer_to_torch(tx, fresh, layout, params, like=run.state_dict()), run.state_dict()
    )
    state_dict = run.minimize(loss, 2).state_dict()
    state = interop.optimizer_from_torch(jo.lbfgs(**arguments, lr=0.3), state_dict, layout, params, count=2)
    assert (state.count, state.hyperparams["lr"]) == (2, 1.0)
    with pytest.raises(interop.LayoutError) as caught:
        interop.optimizer_from_torch(
            jo.lbfgs(max_iter=7, line_search_fn="strong_wolfe"), state_dict, layout, params
        )
    assert [problem.split(":")[0].split(" of ")[0] for problem in caught.value.problems] == [
        "max_iter",
        "max_eval",
        "history_size",
        "line_search_fn",
    ]


def test_adafactor_and_muon_refuse_what_is_no_matrix_of_pytorchs() -> None:
    params = {"attn": {part: {"kernel": jnp.ones((4, 2, 2))} for part in ("query", "key", "value")}}
    layout = interop.make_layout(params, {"attn.in_proj_weight": (12, 4)})
    group = {
        "lr": 0.01,
        "beta2_decay": -0.8,
        "eps": (None, 1e-3),
        "d": 1.0,
        "weight_decay": 0.0,
        "maximize": False,
    }
    state_dict = {"state": {}, "param_groups": [{**group, "params": [0]}]}
    with pytest.raises(interop.LayoutError, match="Adafactor treats 'attn/key/kernel' as a whole"):
        interop.optimizer_from_torch(jo.adafactor(), state_dict, layout, params)
    slots = {"step": np.float32(3), "exp_avg": np.arange(48.0).reshape(12, 4), "exp_avg_sq": np.ones((12, 4))}
    tx, state = interop.from_torch_optimizer(
        {"state": {0: slots}, "param_groups": [{"lr": 0.1, "params": [0]}]}, layout, params, "Adam"
    )
    assert state.count == 3
    value = state.slots["exp_avg"]["attn"]["value"]["kernel"]
    np.testing.assert_array_equal(value.reshape(4, 4), slots["exp_avg"][8:].T)
    back = interop.optimizer_to_torch(tx, state, layout, params)
    np.testing.assert_array_equal(back["state"][0]["exp_avg"], slots["exp_avg"])


def test_adafactor_after_a_flatten() -> None:
    shape = (5, 12)
    rng = np.random.default_rng(0)
    start = {"fc.weight": rng.normal(size=shape)}
    noise = {t: rng.normal(size=shape) for t in range(8)}
    theirs = Run("Adafactor", start).steps(lambda t, p: {"fc.weight": noise[t]}, range(4))
    params = {"fc": {"kernel": jnp.zeros(shape[::-1])}}
    rule = interop.after_flatten(r"fc\.weight", "fc/kernel", 3, 2, 2)
    layout = interop.make_layout(params, start, rules=[rule])
    params = interop.params_from_torch(theirs.params(), layout, like=params)
    tx, state = interop.from_torch_optimizer(theirs.state_dict(), layout, params, "Adafactor")
    assert_same(
        interop.optimizer_to_torch(tx, state, layout, params, like=theirs.state_dict()), theirs.state_dict()
    )
    for time in range(4, 8):
        grads = interop.params_from_torch({"fc.weight": noise[time]}, layout, like=params)
        updates, state = tx.update(grads, state, params)
        params = jo.apply_updates(params, updates)
    theirs.steps(lambda t, p: {"fc.weight": noise[t]}, range(4, 8))
    assert_close(interop.params_to_torch(params, layout), theirs.params(), 1e-12)


def test_inside_other_transformations() -> None:
    problem = Problem(["stem.weight", "stem.bias", "gain"])
    trained = ["stem.weight", "stem.bias"]
    theirs = Run("AdamW", {name: problem.start[name] for name in trained}, {"lr": 0.01})
    theirs.steps(Problem(trained).gradients, range(5))
    params = problem.tree(problem.start)
    layout = interop.make_layout(params, problem.shapes())
    labels = jo.by_path({"^gain$": "frozen"}, default="trained").tree
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.partition({"trained": jo.adamw(lr=0.3), "frozen": optax.set_to_zero()}, labels),
    )
    state = interop.optimizer_from_torch(tx, theirs.state_dict(), layout, params)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
    assert jo.read_hyperparams(state)["lr"] == 0.01
    back = interop.optimizer_to_torch(tx, state, layout, params, like=theirs.state_dict())
    assert_same(back, theirs.state_dict())
    two = optax.chain(jo.sgd(), jo.adam())
    with pytest.raises(ValueError, match=r"one optimizer of this package.*found SGD, Adam"):
        interop.optimizer_from_torch(two, theirs.state_dict(), layout, params)


def test_several_optimizers_in_a_partition() -> None:
    names = ["head.0.weight", "head.0.bias"]
    problem = Problem(names)
    weight, bias = ({name: problem.start[name]} for name in names)
    muon = Run("Muon", weight).steps(Problem(names[:1]).gradients, range(3)).state_dict()
    adamw = Run("AdamW", bias).steps(Problem(names[1:]).gradients, range(3)).state_dict()
    params = problem.tree(problem.start)
    layout = interop.make_layout(params, problem.shapes())
    parts = {"muon": jo.muon(axes=(1, 0)), "adamw": jo.adamw()}
    labels = jo.by_path({"kernel$": "muon"}, default="adamw").tree(params)
    tx = optax.partition(parts, labels)
    state = tx.init(params)
    carried = {
        label: interop.optimizer_from_torch(
            optax.masked(parts[label], jax.tree.map(lambda each, label=label: each == label, labels)),
            state_dict,
            layout,
            params,
        )
        for label, state_dict in {"muon": muon, "adamw": adamw}.items()
    }
    whole = state._replace(inner_states=carried)
    assert jax.tree.structure(whole) == jax.tree.structure(state)
    tx.update(params, whole, params)
    count = carried["adamw"].inner_state.count
    assert count == 3


def test_a_bucketed_optimizer_is_refused() -> None:
    problem = Problem(["stem.bias", "norm.bias"])
    theirs = Run("AdamW", problem.start).steps(problem.gradients, range(3)).state_dict()
    params = problem.tree(problem.start)
    layout = interop.make_layout(params, problem.shapes())
    with pytest.raises(ValueError, match="as those of a bucketed optimizer are not"):
        interop.optimizer_from_torch(jo.bucketed(jo.adamw()), theirs, layout, params)


def test_a_state_of_nnx_variables() -> None:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    params = nnx.state(model, nnx.Param)
    rng = np.random.default_rng(0)
    start = {"weight": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)}
    theirs = Run("Adam", start).steps(lambda time, params: start, range(3)).state_dict()
    layout = interop.make_layout(params, start)
    tx, state = interop.from_torch_optimizer(theirs, layout, params, "Adam")
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
    assert_same(interop.optimizer_to_torch(tx, state, layout, params, like=theirs), theirs)
