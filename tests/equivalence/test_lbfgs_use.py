"""LBFGS as a transformation: what it costs, what it composes with, what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import sparse

import jaxopt_core as jo
from jaxopt_core import lbfgs
from tests import oracle
from tests.equivalence.lbfgs_problems import complex_tree, gradient, network, rosenbrock, run, stepper

WOLFE = {"line_search_fn": "strong_wolfe"}


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_evaluates_as_often_as_pytorch_and_compiles_the_objective_once(search: str | None) -> None:
    loss, params = network(np.float32)
    traced, evaluated = [], []

    def f(p: Any) -> tuple[Any, Any]:
        traced.append(1)
        jax.debug.callback(lambda: evaluated.append(1))
        return gradient(loss)(p)

    tx = lbfgs(lr=0.1, line_search_fn=search)
    tree = jax.tree.map(jnp.asarray, params)
    state, step = tx.init(tree), jax.jit(stepper(tx, f))
    for lr in (0.1, 0.3):
        state = jo.set_hyperparams(state, lr=lr)
        tree, state, _ = step(tree, state)
    jax.effects_barrier()
    assert len(evaluated) == int(state.func_evals)
    assert len(traced) == 2, "once by the caller, once in the loop, and not again for another lr"


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_memory_is_what_the_docstring_says(search: str | None) -> None:
    size, history_size = 20_000, 30
    tx = lbfgs(history_size=history_size, line_search_fn=search)
    weights = jnp.linspace(0.1, 1, size)
    f = jax.value_and_grad(lambda p: jnp.sum(jnp.cosh(p) * weights))
    params = jnp.ones(size)
    state = tx.init(params)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert held == pytest.approx(params.nbytes * (2 * history_size + 2), rel=1e-3)
    compiled = jax.jit(stepper(tx, f), donate_argnums=(0, 1)).lower(params, state).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes >= held + params.nbytes, "the state is not updated in place"
    assert memory.temp_size_in_bytes <= params.nbytes * (10 if search else 8), "a history is copied"
    params, state, _ = compiled(params, state)
    assert int(state.n_iter) > 1


@pytest.mark.slow
@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_vmap_over_the_learning_rate(search: str | None, x64: None) -> None:
    del x64
    loss, params = network(np.float64)
    f, tree, lrs = gradient(loss), jax.tree.map(jnp.asarray, params), jnp.asarray([0.02, 0.1, 0.5])

    def train(lr: Any) -> Any:
        tx = lbfgs(lr=lr, max_iter=5, line_search_fn=search)
        step, carry = stepper(tx, f), (tree, tx.init(tree))
        return jax.lax.scan(lambda c, _: (step(*c)[:2], None), carry, None, length=3)[0]

    together = jax.jit(jax.vmap(train))(lrs)
    for i, lr in enumerate(lrs):
        alone = jax.jit(train)(lr)
        assert int(together[1].func_evals[i]) == int(alone[1].func_evals)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-9, atol=1e-12), together, alone
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "axis",
    [jax.sharding.AxisType.Auto, pytest.param(jax.sharding.AxisType.Explicit, marks=pytest.mark.slow)],
)
def test_sharded_parameters(axis: jax.sharding.AxisType, x64: None) -> None:
    """Every leaf along another axis, or not at all: the flat vectors run across them."""
    del x64
    rng = np.random.default_rng(0)
    layout = {
        "a": ((64,), jax.P("x")),
        "b": ((3, 8), jax.P(None, "x")),
        "c": ((8,), jax.P("x")),
        "d": ((), jax.P()),
    }
    params: Any = {name: jnp.asarray(rng.standard_normal(shape)) for name, (shape, _) in layout.items()}
    params["c"] = params["c"].astype(complex)

    def loss(p: Any) -> Any:
        coupled = jnp.sum(jnp.cosh(p["b"])) * jnp.mean(p["a"] ** 2)
        return jnp.sum((p["a"] - p["d"]) ** 4) + coupled + jnp.sum(jnp.abs(p["c"] - 1j) ** 2)

    tx, f = lbfgs(max_iter=4, history_size=3, **WOLFE), jax.value_and_grad(loss)
    step = jax.jit(stepper(tx, f))
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axis,))
    shardings = {name: jax.NamedSharding(mesh, spec) for name, (_, spec) in layout.items()}
    ends = []
    for start in (params, jax.device_put(params, shardings)):
        tree, state = start, tx.init(start)
        for _ in range(2):
            tree, state, _ = step(tree, state)
        ends.append((tree, state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9), *ends)
    assert all(tree[name].sharding.spec == layout[name][1] for name in "abc")


def test_schedules_arrays_and_chains(x64: None) -> None:
    del x64
    loss, params = network(np.float64)
    rates = {0: 0.1, 1: 0.05, 2: 0.025}
    arguments = {"max_iter": 5, "tolerance_grad": 1e-3}
    expected = oracle.lbfgs_trajectory(loss, params, 3, {**arguments, "lr": 0.1}, lrs=rates)
    tx = optax.chain(
        optax.identity(),
        lbfgs(
            lr=lambda count: jnp.asarray([0.1, 0.05, 0.025])[count],
            max_iter=5,
            tolerance_grad=jnp.asarray(1e-3),
        ),
    )
    f, tree = gradient(loss), jax.tree.map(jnp.asarray, params)
    state, step = tx.init(tree), jax.jit(stepper(tx, f))
    for t, theirs in enumerate(expected):
        tree, state, _ = step(tree, state)
        for path, value in theirs.params.items():
            np.testing.assert_allclose(tree[path], value, rtol=1e-12)
        read = jo.read_hyperparams(state)
        np.testing.assert_allclose([read["lr"], read["tolerance_grad"]], [rates[t], 1e-3])
    changed = jo.set_hyperparams(state, tolerance_grad=1e3)
    frozen, changed, _ = step(tree, changed)
    jax.tree.map(np.testing.assert_array_equal, frozen, tree)
    assert int(changed[1].func_evals) == int(state[1].func_evals) + 1
    assert int(changed[1].n_iter) == int(state[1].n_iter)


@pytest.mark.parametrize("absent", [None, optax.MaskedNode()])
def test_a_missing_gradient_is_zero_and_a_missing_parameter_is_left_out(absent: Any, x64: None) -> None:
    del x64
    loss, params = complex_tree(np.float64)
    arguments = {"max_iter": 5, **WOLFE}
    expected = oracle.lbfgs_trajectory(loss, params, 2, arguments)
    tx = lbfgs(**arguments)
    tree: Any = {**jax.tree.map(jnp.asarray, params), "nothing": {"here": absent}}

    def f(p: Any) -> tuple[Any, Any]:
        assert p["nothing"] == {"here": absent}
        value, grads = gradient(loss)({name: p[name] for name in params})
        return value, {**grads, "idle": absent, "nothing": {"here": absent}}

    state, step = tx.init(tree), jax.jit(stepper(tx, f))
    for theirs in expected:
        tree, state, _ = step(tree, state)
        assert tree["nothing"] == {"here": absent}
        for path, want in theirs.params.items():
            np.testing.assert_allclose(tree[path], want, rtol=1e-12)
    assert state.d.shape == (6 + 2 + 6 + 1 + 3,)


def test_sparse_gradients_are_made_dense() -> None:
    f = jax.value_and_grad(lambda p: jnp.sum((p[1] - 3) ** 4))

    def rows(p: Any) -> tuple[Any, Any]:
        value, grads = f(p)
        return value, sparse.BCOO((grads[1:2], jnp.asarray([[1]])), shape=grads.shape)

    params, tx = jnp.ones((3, 2)), lbfgs(lr=0.1)
    value, grads = f(params)
    dense, _ = tx.update(grads, tx.init(params), params, value=value, value_and_grad_fn=f)
    value, grads = rows(params)
    ours, _ = tx.update(grads, tx.init(params), params, value=value, value_and_grad_fn=rows)
    np.testing.assert_array_equal(ours, dense)
    assert float(jnp.abs(dense[1]).min()) > 0


def test_half_precision_is_evaluated_at_parameters_that_it_can_hold() -> None:
    seen: list[Any] = []

    def loss(p: Any) -> Any:
        wide = p.astype(jnp.float32)
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), wide)
        return jnp.sum((wide - 1 / 3) ** 2 * (1 + wide**2))

    f, tx = jax.value_and_grad(loss), lbfgs(lr=0.1, max_iter=10)
    params = jnp.linspace(-1, 1, 5, dtype=jnp.bfloat16)
    state, step = tx.init(params), jax.jit(stepper(tx, f))
    assert state.d.dtype == jnp.float32
    start = float(loss(params))
    for _ in range(3):
        params, state, _ = step(params, state)
    jax.effects_barrier()
    assert params.dtype == jnp.bfloat16
    assert float(loss(params)) < 0.2 * start
    for x in seen:
        np.testing.assert_array_equal(x, x.astype(jnp.bfloat16).astype(np.float32))


def test_an_empty_tree_is_converged() -> None:
    tx = lbfgs(**WOLFE)
    state = tx.init({})
    value = jnp.asarray(1.0)
    updates, state = tx.update({}, state, {}, value=value, value_and_grad_fn=lambda p: (value, p))
    assert updates == {}
    assert (int(state.func_evals), int(state.n_iter)) == (1, 0)


def test_nan_with_a_flat_slope_ends_the_search_where_pytorch_fails() -> None:
    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        return xp.sum(xp.where(p["x"] < 0, xp.full_like(p["x"], xp.nan), p["x"] ** 2))

    params = {"x": np.asarray([0.5, 0.25], np.float32)}
    with pytest.raises(IndexError):
        oracle.lbfgs_trajectory(loss, params, 1, {"lr": 1.0, **WOLFE})
    (step,) = run(loss, params, 1, WOLFE)
    assert (step.state["n_iter"], step.state["func_evals"]) == (1, 2)
    assert np.isfinite(step.params["x"]).all()


def test_difference_from_optax(x64: None) -> None:
    """The number in the docstring: 20 iterations of each on Rosenbrock's function from (-1.2, 1)."""
    del x64
    loss, params = rosenbrock(np.float64)
    (ours,) = run(loss, params, 1, {"max_eval": 100, **WOLFE})
    tx = optax.lbfgs()

    def step(carry: Any, _: Any) -> tuple[Any, None]:
        params, state = carry
        value, grads = gradient(loss)(params)
        updates, state = tx.update(
            grads, state, params, value=value, grad=grads, value_fn=lambda p: loss(jnp, p)
        )
        return (optax.apply_updates(params, updates), state), None

    start = jax.tree.map(jnp.asarray, params)
    with jax.numpy_dtype_promotion("standard"):  # which Optax relies on
        (theirs, _), _ = jax.lax.scan(step, (start, tx.init(start)), None, length=20)
    assert ours.state["n_iter"] == 20
    apart = np.hypot(*(ours.params[name] - theirs[name] for name in "xy"))
    np.testing.assert_allclose(apart, 0.117, atol=5e-4)
    losses = [float(loss(jnp, p)) for p in (ours.params, theirs)]
    np.testing.assert_allclose(losses, [0.243, 0.178], atol=5e-4)


# --- Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, "Invalid learning rate: -0.1"),
        ({"lr": float("nan")}, ValueError, "Invalid learning rate: nan"),
        ({"line_search_fn": "armijo"}, ValueError, "only 'strong_wolfe' is supported"),
        ({"lr": jo.by_path({"x": 0.1}, default=1.0)}, ValueError, "doesn't support per-parameter options"),
        ({"max_iter": 2.5}, TypeError, "max_iter must be an int"),
        ({"max_iter": -1}, ValueError, "Invalid max_iter: -1"),
        ({"max_eval": 0}, ValueError, "Invalid max_eval: 0"),
        ({"history_size": 0}, ValueError, "Invalid history_size: 0"),
    ],
)
def test_constructor_rejects(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lbfgs(**arguments)


def test_pytorch_words() -> None:
    for arguments in ({"lr": -0.1}, {"line_search_fn": "armijo"}):
        raised = oracle.constructor_error("LBFGS", arguments)
        assert raised is not None
        with pytest.raises(ValueError, match=raised[1]):
            lbfgs(**arguments)


ONES = {"x": np.ones(3, np.float32)}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"params": None}, ValueError, "needs params: call tx.update"),
        ({"value": None}, ValueError, "needs value: call tx.update"),
        ({"value": None, "value_and_grad_fn": None}, ValueError, "needs value and value_and_grad_fn: call"),
        ({"value": np.ones(2)}, TypeError, "value must be a real scalar"),
        ({"grads": {"y": ONES["x"]}}, ValueError, "missing: 'x'; not a parameter: 'y'"),
        ({"grads": {"x": np.ones(2, np.float32)}}, ValueError, r"'x': expected float32 of shape \(3,\)"),
        ({"grads": {"x": np.ones(3, np.float16)}}, ValueError, "got float16"),
        ({"params": {"x": np.ones(4, np.float32)}}, ValueError, "other parameters: it has 3 numbers"),
        ({"params": {"x": np.ones(3, np.int32)}}, TypeError, "'x' is int32"),
        ({"value_and_grad_fn": lambda p: jnp.sum(p["x"])}, TypeError, r"must return \(loss, grads\)"),
        ({"value_and_grad_fn": lambda p: ((jnp.sum(p["x"]), 1), p)}, TypeError, "has_aux=True"),
        ({"value_and_grad_fn": lambda p: (jnp.sum(p["x"]), p["x"])}, ValueError, "tree of the parameters"),
    ],
)
def test_update_rejects(given: dict[str, Any], error: type[Exception], message: str) -> None:
    f = jax.value_and_grad(lambda p: jnp.sum(p["x"] ** 2))
    tx = lbfgs()
    call = {"grads": ONES, "params": ONES, "value": 3.0, "value_and_grad_fn": f, **given}
    with pytest.raises(error, match=message):
        tx.update(call.pop("grads"), tx.init(ONES), **call)
