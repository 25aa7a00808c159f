"""The README's two recipes run and end at the same parameters, and its profile names what is slow in one."""

import pathlib
import re

import jax
import numpy as np

from tests import oracle

README = pathlib.Path(__file__).parents[1] / "README.md"


BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_two_recipes_end_at_the_same_parameters():
    theirs, ours = BLOCKS[:2]
    assert "torch" in theirs
    assert "jaxopt_core" in ours
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(10, 64)).astype(np.float32), np.zeros(10, np.float32)
    batches = [(rng.normal(size=(32, 64)).astype(np.float32), rng.integers(0, 10, 32)) for _ in range(5)]

    expected = oracle.run_recipe(theirs, weight, bias, batches)
    scope = {"params": {"kernel": weight.T, "bias": bias}, "batches": batches}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # as users have it
        exec(ours, scope)

    assert not np.allclose(expected["weight"], weight, atol=1e-2)
    np.testing.assert_allclose(scope["params"]["kernel"].T, expected["weight"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(scope["params"]["bias"], expected["bias"], rtol=0, atol=2e-6)


def test_the_profile_of_the_recipe_names_a_cause(capsys):
    ours, profiled = BLOCKS[1], BLOCKS[-1]
    params = {"kernel": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}
    # Batches of all sizes compile again and again.
    batches = [(np.ones((rows, 64), np.float32), np.zeros(rows, np.int32)) for rows in range(8, 16)]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        scope = {"params": params, "batches": batches[:1]}
        exec(ours, scope)
        exec(profiled, scope | {"batches": batches})
    printed = capsys.readouterr().out
    assert "dot" in printed
    assert "recompiling: " in printed
    assert "change: " in printed
