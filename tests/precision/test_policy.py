"""Policies: their names, their casts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core.precision import Policy, get_policy

F32, BF16, F16 = (jnp.dtype(name) for name in ("float32", "bfloat16", "float16"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("float32", (F32, F32, F32)),
        ("bf16", (BF16, BF16, BF16)),
        ("half", (F16, F16, F16)),
        ("mixed_bfloat16", (F32, BF16, F32)),
        ("mixed_float16", (F32, F16, F32)),
        ("params=float32,compute=bfloat16,output=float32", (F32, BF16, F32)),
        ("p=f32, o=f16, c=bf16", (F32, BF16, F16)),
        ("params=float32,compute=float16", (F32, F16, F16)),
    ],
)
def test_names(text, expected):
    assert get_policy(text) == Policy(*expected)
    assert get_policy(str(get_policy(text))) == get_policy(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("float31", "Invalid dtype 'float31'"),
        ("mixed_int8", "Invalid dtype 'int8'"),
        ("params=float32,inputs=bf16", "'inputs=bf16'; expected params="),
        ("p=f32,params=f32,c=f32", "each once"),
        ("compute=bf16", "does not say param"),
        ("output=f32", "does not say param and compute"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(ValueError, match=message):
        get_policy(text)


def test_casts_touch_floating_leaves_only():
    policy = Policy(jnp.float32, jnp.bfloat16, jnp.float16)
    key = jax.random.key(0)
    tree = {
        "w": jnp.ones(2),
        "numpy": np.ones(2, np.float32),
        "key": key,
        "none": None,
        "s": "tanh",
        "f": 0.5,
    }
    tree |= {"n": jnp.arange(2), "z": jnp.ones(1, jnp.complex64), "flag": jnp.array(True), "f": 0.5}
    for cast, dtype in [("param", F32), ("compute", BF16), ("output", F16)]:
        out = getattr(policy, f"cast_to_{cast}")(tree)
        assert out["w"].dtype == out["numpy"].dtype == dtype
        for name in ("n", "z", "key", "s", "f", "none", "flag"):
            assert out[name] is tree[name]


def test_casts_are_differentiable_and_traceable():
    policy = get_policy("mixed_bfloat16")
    params, x = {"w": jnp.full((2, 2), 0.5)}, jnp.ones((3, 2))

    @jax.jit
    def loss(params):
        p, y = policy.cast_to_compute((params, x))
        out = y @ p["w"]
        assert out.dtype == BF16
        return jnp.sum(policy.cast_to_output(out))

    assert jax.grad(loss)(params)["w"].dtype == F32
