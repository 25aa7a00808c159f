"""The schedulers' values, row by row, beside PyTorch's own steps."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_core import schedulers
from tests import oracle
from tests.schedulers.rows import CLOSED, LR, NESTED, SIXTEEN, STATEFUL, make, needs_memory, values

ROWS = [*CLOSED, *STATEFUL, *NESTED]
COSINES_AND_TRIANGLES = ("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR")
NOT_WHOLE = ("scale_fn", "T_max=7.5", "step_size_up=2.5")
PERIODIC = [
    r for r in CLOSED if r.theirs in COSINES_AND_TRIANGLES and not any(n in str(r) for n in NOT_WHOLE)
]
FALLING = [r for r in CLOSED if r.arguments.get("gamma", 0) <= 1]
ENDING = [r for r in FALLING if r.theirs not in (*COSINES_AND_TRIANGLES, "OneCycleLR", "LambdaLR")]
RECURSIVE = [row for row in [*STATEFUL, *NESTED] if needs_memory(make(row.spec))]


def parts(schedule):
    """What is compared: the rate, and the momentum where there is one."""
    if not isinstance(schedule, schedulers.Cycle):
        return {"lr": schedule}
    return {name: part for name, part in vars(schedule).items() if part is not None}


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.usefixtures("x64")
def test_float64(row):
    # PyTorch's recursions round at every step, and cancel where a cosine is low: relative to the largest.
    expected = oracle.run_scheduler(row.spec, row.steps, LR)
    for name, part in parts(make(row.spec)).items():
        got = values(part, row.steps) if needs_memory(part) else part(np.arange(row.steps))
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected[name], rtol=1e-12, atol=1e-12 * np.abs(expected[name]).max())


@pytest.mark.parametrize("row", CLOSED, ids=str)
def test_float32_keeps_its_digits_at_every_step(row):
    # Relative to each value. The judge is the closed form in float64, for PyTorch's recursion leaves 1e-17
    # where the rate is 0; test_float64 ties the two.
    for part in parts(make(row.spec)).values():
        got = values(part, row.steps)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, part(np.arange(row.steps)), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("row", [row for row in NESTED if row not in RECURSIVE][::3], ids=str)
def test_float32_of_compositions_without_memory(row):
    for part in parts(make(row.spec)).values():
        got, expected = part(jnp.arange(row.steps)), part(np.arange(row.steps))
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("row", RECURSIVE[::6], ids=str)
def test_float32_of_compositions_with_memory(row):
    # Recursions round at every step, and a chained cosine multiplies the error by up to T_max**2 / 2.
    expected = oracle.run_scheduler(row.spec, row.steps, LR)
    for name, part in parts(make(row.spec)).items():
        np.testing.assert_allclose(values(part, row.steps), expected[name], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("row", CLOSED, ids=str)
def test_counts_of_python_and_numpy(row):
    for part in parts(make(row.spec)).values():
        whole = part(np.arange(row.steps))
        assert (whole.dtype, whole.shape) == (np.float64, (row.steps,))
        chosen = np.array([0, 1, row.steps // 2, row.steps - 1])
        for count in chosen:
            for same in (int(count), np.int32(count), count):
                assert isinstance(part(same), float)
                np.testing.assert_allclose(part(same), whole[count], rtol=1e-15)
        np.testing.assert_array_equal(part(chosen.reshape(2, 2)), whole[chosen.reshape(2, 2)])


@pytest.mark.parametrize("theirs", sorted({row.theirs for row in CLOSED}))
def test_counts_of_jax(theirs):
    row = [row for row in CLOSED if row.theirs == theirs][-1]
    counts = jnp.arange(4)
    for part in parts(make(row.spec)).values():
        whole = part(np.arange(4))
        square, batch, one = jax.jit(lambda k: (part(k.reshape(2, 2)), jax.vmap(part)(k), part(k[1])))(counts)  # noqa: B023
        np.testing.assert_allclose(square, whole.reshape(2, 2), rtol=1e-6)
        np.testing.assert_allclose(batch, whole, rtol=1e-6)
        assert (one.shape, one.dtype, one.weak_type) == ((), jnp.float32, False)
        np.testing.assert_allclose(one, whole[1], rtol=1e-6)


@pytest.mark.parametrize("theirs", sorted({row.theirs for row in CLOSED} - {"CyclicLR", "OneCycleLR"}))
def test_base_rate_may_be_a_tracer(theirs):
    row = [row for row in CLOSED if row.theirs == theirs][-1]
    counts = jnp.arange(10)
    got = jax.jit(jax.vmap(lambda lr: make(row.spec, lr)(counts)))(jnp.float32([LR, 2 * LR]))
    for rate, each in zip((LR, 2 * LR), got, strict=True):
        np.testing.assert_allclose(each, make(row.spec, rate)(np.arange(10)), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("cycle", [schedulers.cyclic_lr, schedulers.one_cycle_lr])
def test_rates_of_a_cycle_may_be_tracers(cycle):
    first, arguments = ("base_lr", dict(max_lr=1.0, step_size_up=4)), ("max_lr", dict(total_steps=20))
    name, rest = first if cycle is schedulers.cyclic_lr else arguments
    got = jax.vmap(lambda lr: cycle(**{name: lr}, **rest).lr(jnp.arange(10)))(jnp.float32([0.1, 0.3]))
    for rate, each in zip((0.1, 0.3), got, strict=True):
        np.testing.assert_allclose(each, cycle(**{name: rate}, **rest).lr(np.arange(10)), rtol=1e-6)


def sequence(lr):
    parts = [
        schedulers.linear_lr(lr, 0.1),
        schedulers.cosine_annealing_lr(lr, 10),
        schedulers.swa_lr(lr, 0.1),
    ]
    return schedulers.sequential_lr(parts, [5, 12])


def chain(lr):
    parts = [schedulers.linear_lr(lr, 0.1), schedulers.cosine_annealing_lr(lr, 10, eta_min=0.01)]
    return schedulers.chained_scheduler(parts)


@pytest.mark.parametrize("composition", [sequence, chain])
def test_composition_of_tracers(composition):
    def traced(lr):
        schedule = composition(lr)
        if not needs_memory(schedule):
            return schedule(jnp.arange(20))
        return jax.lax.scan(lambda s, _: (schedule.update(s), schedule(s)), schedule.init(), length=20)[1]

    got = jax.jit(jax.vmap(traced))(jnp.float32([LR, 0.7]))
    np.testing.assert_allclose(got[0], values(composition(LR), 20), rtol=1e-6)
    np.testing.assert_allclose(got[1], values(composition(0.7), 20), rtol=1e-6)


@pytest.mark.parametrize(("T_0", "T_mult", "eta_min"), [(10, 1, 0.0), (7, 2, 0.01), (4, 3, 0.0)])
@pytest.mark.usefixtures("x64")
def test_fractional_epochs(T_0, T_mult, eta_min):
    epochs = np.arange(1, 600) / 7
    spec = ("CosineAnnealingWarmRestarts", {"T_0": T_0, "T_mult": T_mult, "eta_min": eta_min})
    expected = oracle.run_scheduler(spec, len(epochs) + 1, LR, epochs=epochs.tolist())["lr"][1:]
    schedule = make(spec)
    inside = epochs % 1 != 0  # at a restart PyTorch's logarithm may miss it
    for got in (schedule(epochs), jax.jit(schedule)(jnp.asarray(epochs))):
        np.testing.assert_allclose(got[inside], expected[inside], rtol=1e-12, atol=1e-14)
    steps = jnp.arange(1, 600)
    np.testing.assert_allclose(
        jax.jit(schedulers.per_epoch(schedule, 7, fractional=True))(steps)[inside],
        expected[inside],
        atol=1e-13,
    )


def test_a_restart_in_powers_of_three_is_not_missed():
    schedule = schedulers.cosine_annealing_warm_restarts(1.0, 2, 3)
    assert [schedule(3**n - 1) for n in range(10)] == [1.0] * 10
    assert [float(jax.jit(schedule)(3**n - 1)) for n in range(10)] == [1.0] * 10


@pytest.mark.parametrize("row", PERIODIC, ids=str)
def test_large_counts(row):
    # Where float32 cannot hold the count, what is left of a period still is exact.
    counts = np.array([10**6 - 1, 10**9 - 1, 2**31 - 1])
    for part in parts(make(row.spec)).values():
        np.testing.assert_allclose(part(jnp.asarray(counts)), part(counts), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("row", ENDING, ids=str)
def test_large_counts_after_the_end(row):
    end = make(row.spec)(10**6)
    assert float(make(row.spec)(jnp.int32(2**31 - 1))) == pytest.approx(end, rel=1e-6, abs=1e-30)


def test_ends_are_exact():
    cosine = jax.jit(schedulers.cosine_annealing_lr(0.1, 1000))
    assert float(cosine(1000)) == 0
    last = np.asarray(cosine(jnp.arange(990, 1000)), np.float64)
    np.testing.assert_allclose(last, 0.1 * np.sin(np.pi / 2 * np.arange(10, 0, -1) / 1000) ** 2, rtol=4e-7)
    one = schedulers.one_cycle_lr(0.1, total_steps=1000)
    assert float(jax.jit(one.lr)(999)) == np.float32(0.1 / 25 / 1e4)
    assert float(jax.jit(schedulers.polynomial_lr(0.1, 1000, 3.0))(1000)) == 0
    assert float(jax.jit(schedulers.swa_lr(0.1, 0.03))(10)) == np.float32(0.03)


def test_arguments_are_pytorchs():
    for theirs, ours in SIXTEEN.items():
        signature = inspect.signature(getattr(schedulers, ours)).parameters
        expected = oracle.scheduler_signature(theirs)
        for name in ("optimizer", "last_epoch"):
            expected.pop(name, None)
        got = {name: p.default for name, p in signature.items() if name != "per_epoch"}
        if "lr" in got:
            assert next(iter(got)) == "lr"
            got.pop("lr")
        assert list(got) == list(expected), theirs
        assert {n: d for n, d in got.items() if n != "min_lr"} == {
            n: d for n, d in expected.items() if n != "min_lr"
        }


def test_optaxs_schedules_are_children():
    decay = optax.schedules.linear_schedule(0.4, 0.1, 6)
    rows = [schedulers.linear_lr(0.4, 0.5), schedulers.step_lr(0.4, 4)]
    with jax.numpy_dtype_promotion("standard"):  # Optax divides integers
        sequence = schedulers.sequential_lr([rows[0], decay, rows[1]], [5, 12])
        got = values(sequence, 20)
        expected = [
            *rows[0](np.arange(5)),
            *[float(decay(count)) for count in range(7)],
            *rows[1](np.arange(8)),
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        chain = schedulers.chained_scheduler([decay, schedulers.step_lr(0.4, 1, 0.5)])
        rates = [float(decay(count)) / (2 if count else 1) for count in range(8)]
        np.testing.assert_allclose(values(chain, 8), rates, rtol=1e-6)
