"""Each cause is found where it was planted, and a clean loop is told nothing."""

import dataclasses
import itertools
import logging
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core.profiling import Compilation, Schedule, advise, profile
from jaxopt_core.profiling import advice as rules

SHORT = Schedule(wait=2, warmup=1, active=4)
# Large enough that dispatch is no part of it, and square, so that it stays in the cache.
W = np.full((512, 512), 0.01, np.float32)


def product(w, x):
    for _ in range(3):
        x = jnp.tanh(x @ w)
    return w * 0.999, x.sum()


def balanced(w, x):
    """As much of what is no product, so that products run at a fraction of what they could."""
    w, total = product(w, x)
    return w, total + jnp.sort(w - x, axis=0)[0, 0]


STEP = jax.jit(product, donate_argnums=0)


def loop(step, state, batches, after=lambda loss: None, schedule=SHORT):
    with profile(schedule) as recorder:
        for batch in recorder.watch(itertools.islice(batches, 7)):
            state, loss = step(state, batch)
            after(loss)
            recorder.step((state, loss))
    return recorder.result


def causes(found):
    return {advice.cause for advice in advise(found)}


def clean(work):
    x = jnp.ones((512, 512))
    # Of its own, so that no other test's program has the same name and operations.
    step = jax.jit(lambda *args: work(*args), donate_argnums=0)  # noqa: PLW0108
    return loop(step, jnp.asarray(W), itertools.repeat(x))


def test_a_clean_loop_is_told_nothing(monkeypatch):
    monkeypatch.setattr(rules, "bfloat16_gain", lambda *_: 1.0)  # that of this machine is another test's
    assert causes(clean(balanced)) == set()


def test_input_bound():
    batch = jnp.ones((2, 512))

    def slow():
        while True:
            time.sleep(0.1)
            yield batch

    found = [each for each in advise(loop(STEP, jnp.asarray(W), slow())) if each.cause == "input-bound"]
    assert "waited for its next batch 1" in found[0].evidence
    assert "prefetch" in found[0].change


def test_recompiling_names_what_changed():
    sizes = iter(range(100, 200))
    ragged = (jnp.ones((next(sizes), 512)) for _ in itertools.count())
    found = [each for each in advise(loop(STEP, jnp.asarray(W), ragged)) if each.cause == "recompiling"]
    (of_step,) = [each for each in found if "product" in each.evidence]
    assert "at x, now f32[10" in of_step.evidence
    assert "compiled 7 times" in of_step.evidence


def test_recompiling_tells_functions_apart():
    @jax.jit
    def first(left):
        return left.sum()

    @jax.jit
    def second(right):
        return right.sum()

    def both(state, batch):
        return state, (first(batch), second(batch[:, :2]))

    ragged = (jnp.ones((rows, 3)) for rows in itertools.count(1))
    evidence = [each.evidence for each in advise(loop(both, None, ragged)) if each.cause == "recompiling"]
    (of_first,) = [each for each in evidence if "jit(first)" in each]
    (of_second,) = [each for each in evidence if "jit(second)" in each]
    assert "at left, now f32[" in of_first
    assert "right" not in of_first
    assert "at right, now f32[" in of_second
    assert "left" not in of_second


def test_what_was_compiled_between_recorded_steps_took_none_of_their_time():
    found = loop(STEP, jnp.asarray(W), itertools.repeat(jnp.ones((512, 512))), schedule=Schedule(1, 0, 1, 3))
    assert found.recorded == [1, 3, 5]
    compiled = [Compilation(step, "jit(product)", 10.0**step) for step in range(6)]
    assert rules._compile_seconds(dataclasses.replace(found, compilations=compiled)) == 10 + 1e3 + 1e5


def test_synchronising():
    x = jnp.ones((512, 512))
    found = loop(STEP, jnp.asarray(W), itertools.repeat(x), after=float)
    assert "synchronising" in causes(found)


def test_synchronising_is_seen_in_a_thread_of_any_name():
    found = []

    def work():
        name = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        if name.exists():
            name.write_text("trainer")
        found.append(loop(STEP, jnp.asarray(W), itertools.repeat(jnp.ones((512, 512))), after=float))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found[0].trace.host_waits) >= 4


def test_host_bound():
    tiny = jax.jit(lambda w, x: (w + x, w.sum()), donate_argnums=0)

    def pythonic(w, x):
        sum(range(200_000))
        return tiny(w, x)

    found = loop(pythonic, jnp.ones(4), itertools.repeat(jnp.ones(4)))
    assert "host-bound" in causes(found)


@pytest.mark.slow
def test_tiny_kernels():
    @jax.jit
    def step(w, x):
        for _ in range(120):
            x = x @ w
        return w, x

    found = loop(step, jnp.eye(3), itertools.repeat(jnp.ones((3, 3))))
    assert "tiny kernels" in causes(found)


@pytest.mark.slow
def test_padding():
    x = {"x": jnp.ones((512, 512)), "mask": np.arange(64) < 32}
    step = jax.jit(lambda w, batch: product(w, batch["x"]), donate_argnums=0)
    found = loop(step, jnp.asarray(W), itertools.repeat(x))
    (advice,) = [each for each in advise(found) if each.cause == "padding"]
    assert advice.evidence == "50% of the examples only fill up batches"


def test_donation_missed():
    def step(state, x):
        return {"a": state["a"] + x, "b": state["b"] * 0.9 + x}, state["b"].sum()

    state = {"a": jnp.ones(8), "b": jnp.ones((1024, 1024))}
    found = loop(jax.jit(step), state, itertools.repeat(jnp.ones(())))
    (advice,) = [each for each in advise(found) if each.cause == "donation"]
    assert "returns 4.0 MiB in the shapes of arguments" in advice.evidence


@pytest.mark.parametrize(
    ("gain", "expected"), [pytest.param(1.0, False, marks=pytest.mark.slow), (2.0, True)]
)
def test_bfloat16_is_advised_where_it_was_measured_to_gain(monkeypatch, gain, expected):
    measured = []
    monkeypatch.setattr(rules, "bfloat16_gain", lambda *dims: measured.append(dims) or gain)
    assert ("float32" in causes(clean(product))) == expected
    assert measured == [(512, 512, 512)]


@pytest.mark.slow
def test_memory_bound(monkeypatch):
    monkeypatch.setattr(rules, "peak_flops", lambda _: 5e10)
    monkeypatch.setattr(rules, "peak_bandwidth", lambda: 2e9)  # below what any machine has
    stream = jax.jit(lambda w, x: (w + x, w[0]), donate_argnums=0)
    assert "memory-bound" in causes(loop(stream, jnp.ones(1 << 22), itertools.repeat(jnp.ones(()))))


def test_compute_bound(monkeypatch):
    monkeypatch.setattr(rules, "bfloat16_gain", lambda *_: 1.0)
    monkeypatch.setattr(rules, "peak_flops", lambda _: 1e9)  # below what any machine has
    large = jax.jit(lambda w, x: (x @ w, x[0, 0]), donate_argnums=0)
    found = loop(large, jnp.ones((1024, 1024)), itertools.repeat(jnp.eye(1024)))
    (advice,) = [each for each in advise(found) if each.cause == "compute-bound"]
    assert "GFLOP/s, and a large float32 product on this machine 1.0; it does 1" in advice.evidence
    assert "bfloat16" in advice.change


def test_nothing_is_left_behind():
    before = jax.config.values["jax_explain_cache_misses"], logging.getLogger("jax").handlers[:]
    with profile() as recorder:
        pass
    assert (jax.config.values["jax_explain_cache_misses"], logging.getLogger("jax").handlers) == before
    with pytest.raises(
        RuntimeError, match="nothing was recorded: the loop made 0 steps and recording begins with the 5th"
    ):
        _ = recorder.result
