"""One update in float32 is accurate to 1e-6 at any step: no scalar in it loses digits.

The reference is the published formula in numpy's float64, from the same float32 gradient, parameter and
slots. Everything is positive, so that no sum cancels for reasons of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo

STEPS = [1, 2, 6, 10, 1_000, 100_000]
BETA2 = [0.999, 0.9999]
LIMIT = 1e-6

Arrays = dict[str, Any]


def adam(g: Any, p: Any, s: Arrays, t: int, h: Arrays) -> Any:
    del p
    m, v = averages(g, s, h)
    bias1, bias2 = corrections(t, h)
    return -h["lr"] * (m / bias1) / (np.sqrt(v / bias2) + h["eps"])


def adamw(g: Any, p: Any, s: Arrays, t: int, h: Arrays) -> Any:
    return adam(g, p, s, t, h) - h["lr"] * 0.01 * p


def sparse_adam(g: Any, p: Any, s: Arrays, t: int, h: Arrays) -> Any:
    del p
    m, v = averages(g, s, h)
    bias1, bias2 = corrections(t, h)
    return -h["lr"] * np.sqrt(bias2) / bias1 * m / (np.sqrt(v) + h["eps"])


def nadam(g: Any, p: Any, s: Arrays, t: int, h: Arrays) -> Any:
    del p
    m, v = averages(g, s, h)
    mu, mu_next = (h["betas"][0] * (1 - 0.5 * 0.96 ** (i * h["momentum_decay"])) for i in (t, t + 1))
    product = s["mu_product"] * mu
    look_ahead = (1 - mu) / (1 - product) * g + mu_next / (1 - product * mu_next) * m
    return -h["lr"] * look_ahead / (np.sqrt(v / corrections(t, h)[1]) + h["eps"])


def radam(g: Any, p: Any, s: Arrays, t: int, h: Arrays) -> Any:
    del p
    m, v = averages(g, s, h)
    bias1, bias2 = corrections(t, h)
    limit = 2 / (1 - h["betas"][1]) - 1
    rho = limit - 2 * t * h["betas"][1] ** t / bias2
    if rho <= 5:
        return -h["lr"] * m / bias1
    r = np.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    return -h["lr"] * m / bias1 * r * np.sqrt(bias2) / (np.sqrt(v) + h["eps"])


def adamax(g: Any, p: Any, s: Arrays, t: int, h: Arrays) -> Any:
    del p
    m, _ = averages(g, s | {"exp_avg_sq": 0}, h)
    return -h["lr"] / corrections(t, h)[0] * m / np.maximum(h["betas"][1] * s["exp_inf"], g + h["eps"])


def adagrad(g: Any, p: Any, s: Arrays, t: int, h: Arrays) -> Any:
    del p
    return -h["lr"] / (1 + (t - 1) * h["lr_decay"]) * g / (np.sqrt(s["sum"] + g * g) + h["eps"])


def asgd(g: Any, p: Any, s: Arrays, t: int, h: Arrays) -> Any:
    eta = h["lr"] if t == 1 else s["eta"]
    return -eta * (g + h["lambd"] * p)


def averages(g: Any, s: Arrays, h: Arrays) -> tuple[Any, Any]:
    beta1, beta2 = h["betas"]
    return beta1 * s["exp_avg"] + (1 - beta1) * g, beta2 * s["exp_avg_sq"] + (1 - beta2) * g * g


def corrections(t: int, h: Arrays) -> tuple[Any, Any]:
    return tuple(1 - beta**t for beta in h["betas"])


Formula = Callable[[Any, Any, Arrays, int, Arrays], Any]
FORMULAS: dict[str, Formula] = {
    f.__name__: f for f in (adam, adamw, nadam, radam, adamax, sparse_adam, adagrad, asgd)
}
EXTRA: dict[str, Arrays] = {
    "nadam": {"momentum_decay": 4e-3},
    "adagrad": {"lr_decay": 1e-3},
    "asgd": {"lambd": 1e-2},
}


def arguments_of(optimizer: str, beta2: float) -> Arrays:
    shared: Arrays = {"lr": 1e-3}
    if optimizer != "asgd":
        shared["eps"] = 1e-8
    if optimizer not in ("adagrad", "asgd"):
        shared["betas"] = (0.9, beta2)
    return shared | EXTRA.get(optimizer, {})


def problem(optimizer: str, dtype: Any = np.float32) -> tuple[Any, Any, Arrays]:
    """Gradient, parameter and slots of a run under way."""
    rng = np.random.default_rng(0)
    g, p, *rest = rng.uniform(0.1, 1.0, size=(6, 64, 2)).astype(dtype)
    state = jax.eval_shape(getattr(jo, optimizer)().init, jnp.asarray(p))
    scalars = {"mu_product": 0.25, "eta": 7e-4, "mu": 1.0}
    slots = {
        name: np.float32(scalars[name]) if not slot.shape else rest[i]
        for i, (name, slot) in enumerate(state.slots.items())
    }
    return g, p, slots


def one_update(tx: Any, compiled: bool = True) -> Callable[[Any, Any, Arrays, int], Any]:
    """A function of gradient, parameter, slots and step; one compilation serves all of them."""
    update = jax.jit(tx.update) if compiled else tx.update

    def at(g: Any, p: Any, slots: Arrays, t: int) -> Any:
        params, grad = jnp.asarray(p), jnp.asarray(g)
        if tx.rule.sparse:
            grad = jo.sparse_rows(jnp.arange(len(p)), grad, len(p))
        state = tx.init(params)._replace(
            count=jnp.asarray(t - 1, jnp.int32), slots=jax.tree.map(jnp.asarray, slots)
        )
        change, _ = update(grad, state, params)
        return change.data if tx.rule.sparse else change

    return at


def relative_error(actual: Any, expected: Any) -> float:
    return float(np.max(np.abs(np.asarray(actual, np.float64) - expected) / np.abs(expected)))


def float64(tree: Any) -> Any:
    return jax.tree.map(np.float64, tree)


def of_optax(g: Any, p: Any, slots: Arrays, t: int, beta2: float) -> Any:
    tx = optax.adam(1e-3, b2=beta2)
    adam_state, *rest = tx.init(jnp.asarray(p))
    adam_state = adam_state._replace(
        count=jnp.asarray(t - 1, jnp.int32),
        mu=jnp.asarray(slots["exp_avg"]),
        nu=jnp.asarray(slots["exp_avg_sq"]),
    )
    with jax.numpy_dtype_promotion("standard"):
        return tx.update(jnp.asarray(g), (adam_state, *rest), jnp.asarray(p))[0]


@pytest.mark.parametrize("t", STEPS)
@pytest.mark.parametrize("beta2", BETA2)
@pytest.mark.parametrize("optimizer", FORMULAS)
def test_numbers(optimizer, beta2, t):
    given = arguments_of(optimizer, beta2)
    g, p, slots = problem(optimizer)
    update = one_update(getattr(jo, optimizer)(**given), compiled=False)(g, p, slots, t)
    given["lr"] = np.float32(given["lr"])  # the learning rate is kept in the state
    expected = FORMULAS[optimizer](*float64((g, p, slots)), t, float64(given))
    assert relative_error(update, expected) < LIMIT


@pytest.mark.parametrize("t", STEPS)
@pytest.mark.parametrize("beta2", BETA2)
@pytest.mark.parametrize("optimizer", FORMULAS)
def test_arrays(optimizer, beta2, t):
    # Against the same float32 values: what the device can know.
    given = jax.tree.map(np.float32, arguments_of(optimizer, beta2))
    g, p, slots = problem(optimizer)
    tx = getattr(jo, optimizer)(**jax.tree.map(jnp.asarray, given))
    update = one_update(tx, compiled=False)(g, p, slots, t)
    expected = FORMULAS[optimizer](*float64((g, p, slots)), t, float64(given))
    assert relative_error(update, expected) < LIMIT


@pytest.mark.parametrize("optimizer", FORMULAS)
def test_compiled(optimizer):
    # The compiler may rearrange scalar arithmetic; it must not undo the care.
    given = jax.tree.map(np.float32, arguments_of(optimizer, BETA2[0]))
    g, p, slots = problem(optimizer)
    update = one_update(getattr(jo, optimizer)(**jax.tree.map(jnp.asarray, given)))
    rows = []
    for t in STEPS:
        expected = FORMULAS[optimizer](*float64((g, p, slots)), t, float64(given))
        rows.append((t, relative_error(update(g, p, slots, t), expected)))
    assert max(error for _, error in rows) < LIMIT, rows


@pytest.mark.parametrize("beta2", BETA2)
def test_adam_compiled_and_beside_optax(beta2):
    given = arguments_of("adam", beta2)
    g, p, slots = problem("adam")
    update = one_update(jo.adam(**given))
    rows = []
    for t in STEPS:
        exact = adam(*float64((g, p, slots)), t, given)
        rounded = adam(*float64((g, p, slots)), t, given | {"lr": float(np.float32(given["lr"]))})
        ours = relative_error(update(g, p, slots, t), rounded)
        rows.append((t, ours, relative_error(of_optax(g, p, slots, t, beta2), exact)))
    table = "\n".join(f"step {t:>6}: {ours:.1e}, Optax {theirs:.1e}" for t, ours, theirs in rows)
    print(table)  # noqa: T201, shown when this fails and with pytest -s
    assert max(ours for _, ours, _ in rows) < LIMIT, table


@pytest.mark.parametrize("t", [1, 10, 100_000])
def test_eta_and_mu_of_asgd(t):
    tx = jo.asgd(lr=1e-2, lambd=1e-2, t0=3.0)
    g, p, slots = problem("asgd")
    state = tx.init(jnp.asarray(p))._replace(
        count=jnp.asarray(t - 1, jnp.int32), slots=jax.tree.map(jnp.asarray, slots)
    )
    _, state = tx.update(jnp.asarray(g), state, jnp.asarray(p))
    lr = float(np.float32(1e-2))
    assert relative_error(state.slots["eta"], lr / (1 + 1e-2 * lr * t) ** 0.75) < LIMIT
    assert relative_error(state.slots["mu"], 1 / max(1, t - 3.0)) < LIMIT


@pytest.mark.parametrize("t", [1, 10, 100_000])
def test_weight_of_adafactor(t):
    tx = jo.adafactor(lr=0.5, beta2_decay=-0.8)
    g, p = jnp.full((3,), 2.0), jnp.full((3,), 1e-4)
    state = tx.init(p)._replace(count=jnp.asarray(t - 1, jnp.int32))
    _, state = tx.update(g, state, p)
    assert relative_error(state.slots["variance"], np.full(3, 4.0 * float(t) ** -0.8)) < LIMIT


@pytest.mark.parametrize("t", [1, 10, 1_000])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "radam", "adamax", "adagrad", "asgd"])
def test_half_precision_is_float32_rounded_once(optimizer, dtype, t):
    tx = getattr(jo, optimizer)(**arguments_of(optimizer, 0.999))
    g, p, slots = problem(optimizer, jnp.dtype(dtype))
    update = one_update(tx, compiled=False)
    half = update(g, p, slots, t)
    single = update(*jax.tree.map(lambda x: x.astype(np.float32), (g, p, slots)), t)
    assert half.dtype == dtype
    np.testing.assert_array_equal(np.asarray(half, np.float32), np.asarray(single.astype(dtype), np.float32))
