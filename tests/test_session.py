"""The suite's own settings: the other tests mean little without them."""

import jax
import jax.numpy as jnp
import pytest


def test_eight_devices():
    assert len(jax.devices()) == 8


def test_dtypes_are_not_promoted_silently():
    with pytest.raises(ValueError, match="promotion"):
        jnp.float32(1) + jnp.bfloat16(1)


def test_ranks_are_not_promoted_silently():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.zeros(3) + jnp.zeros((2, 3))


def test_32_bit_unless_asked_for():
    assert jnp.zeros(3).dtype == jnp.float32


def test_64_bit_where_asked_for(x64):
    del x64
    assert jnp.zeros(3).dtype == jnp.float64
