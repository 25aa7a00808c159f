"""Slots live where their parameters live, told beforehand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_core as jo
from jaxopt_core.parallel import optimizer_shardings


@pytest.fixture
def mesh():
    return jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))


@pytest.fixture
def params():
    return {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4), "frozen": None}


@pytest.fixture
def shardings(mesh):
    return {
        "kernel": NamedSharding(mesh, P("data", "model")),
        "bias": NamedSharding(mesh, P("model")),
        "frozen": None,
    }


def test_slots_follow_their_parameters_and_the_rest_is_replicated(params, shardings):
    where = optimizer_shardings(jax.eval_shape(jo.adam().init, params), params, shardings)
    assert where.slots["exp_avg"] == shardings
    assert where.slots["exp_avg_sq"] == shardings
    assert where.count.spec == P()
    assert where.hyperparams["lr"].spec == P()


def test_averaged_axes_are_not_sharded(params, shardings):
    where = optimizer_shardings(jax.eval_shape(jo.adafactor().init, params), params, shardings)
    assert where.slots["row_var"]["kernel"].spec == P("data", None)
    assert where.slots["col_var"]["kernel"].spec == P(None, "model")
    assert where.slots["variance"]["bias"].spec == P("model")
    assert where.slots["variance"]["kernel"] is None


def test_scalars_of_a_parameter_are_replicated(params, shardings):
    where = optimizer_shardings(jax.eval_shape(jo.nadam().init, params), params, shardings)
    assert where.slots["mu_product"]["kernel"].spec == P()


def test_nested_states_and_jitted_init(params, shardings):
    del params["frozen"], shardings["frozen"]
    labels = {"kernel": "muon", "bias": "adamw"}
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.partition({"muon": jo.muon(), "adamw": jo.adamw()}, labels),
    )
    where = optimizer_shardings(jax.eval_shape(tx.init, params), params, shardings)
    state = jax.jit(tx.init, out_shardings=where)(params)
    inner = state[1].inner_states
    assert inner["muon"].inner_state.slots["momentum_buffer"]["kernel"].sharding == shardings["kernel"]
    assert inner["adamw"].inner_state.slots["exp_avg"]["bias"].sharding == shardings["bias"]


def test_a_mismatch_is_named(params, shardings):
    with pytest.raises(ValueError, match="Expected shardings with the tree of the parameters"):
        optimizer_shardings(jo.adam().init(params), params, {"kernel": shardings["kernel"]})
    with pytest.raises(ValueError, match="no parameter to take a mesh from"):
        optimizer_shardings(jo.adam().init({}), {}, {})
