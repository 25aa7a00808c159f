"""What does not fit together: the message names the path, what was expected and what came."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import sparse

import jaxopt_core as jo
from tests.engine.cases import NAMES, gradients, make, parameters

every = pytest.mark.parametrize("optimizer", NAMES)
PARAMS = {"layers": [{"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}], "scale": jnp.ones(())}


def changed(path, value):
    """The gradients, with another leaf at ``path``."""
    return jax.tree_util.tree_map_with_path(
        lambda p, leaf: value if jax.tree_util.keystr(p, simple=True, separator="/") == path else leaf, PARAMS
    )


def update(grads, params=PARAMS, optimizer="adam", state=None):
    tx = make(optimizer)
    return tx.update(grads, tx.init(PARAMS) if state is None else state, params)


@every
def test_no_parameters(optimizer):
    tx, params = make(optimizer), parameters(optimizer)
    with pytest.raises(ValueError, match=r"needs the parameters: call tx\.update\(grads, state, params\)"):
        tx.update(gradients(optimizer, 0), tx.init(params))


def test_name_in_the_message():
    with pytest.raises(ValueError, match=r"^RMSprop needs"):
        update(PARAMS, None, "rmsprop")


# --- Trees --------------------------------------------------------------------------------------------


def test_missing_gradient():
    with pytest.raises(ValueError, match=r"missing: 'layers/0/bias'.*None in its place"):
        update({"layers": [{"kernel": jnp.ones((2, 3))}], "scale": jnp.ones(())})


def test_gradient_of_nothing():
    with pytest.raises(ValueError, match=r"not a parameter: 'shift'"):
        update(PARAMS | {"shift": jnp.ones(())})


def test_both():
    with pytest.raises(ValueError, match=r"missing: 'scale'; not a parameter: 'scales'"):
        update({"layers": PARAMS["layers"], "scales": jnp.ones(())})


def test_other_containers_with_the_same_paths():
    with pytest.raises(ValueError, match=r"do not have the tree of the parameters.*expected.*got"):
        update({"layers": tuple(PARAMS["layers"]), "scale": jnp.ones(())})


def test_many_missing_are_not_all_listed():
    params = {f"p{i}": jnp.ones(1) for i in range(100)}
    tx = jo.adam()
    with pytest.raises(ValueError, match=r"missing: 'p0'") as error:
        tx.update({}, tx.init(params), params)
    assert len(str(error.value)) < 400


# --- Leaves -------------------------------------------------------------------------------------------


def test_shape():
    grads = changed("layers/0/kernel", jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"'layers/0/kernel': expected shape \(2, 3\), got \(3, 2\)"):
        update(grads)


def test_shape_that_would_broadcast():
    with pytest.raises(ValueError, match=r"'layers/0/bias': expected shape \(3,\), got \(\)"):
        update(changed("layers/0/bias", jnp.ones(())))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "complex64", "bool"])
def test_dtype(dtype):
    grads = changed("layers/0/bias", jnp.ones(3, dtype))
    with pytest.raises(TypeError, match=rf"'layers/0/bias': expected float32.*got {dtype}"):
        update(grads)


def test_symbolic_zero_gradient_of_an_integer():
    # What jax.grad(allow_int=True) returns.
    zero = jax.grad(lambda i: i.sum().astype(float), allow_int=True)(jnp.ones(3, int))
    with pytest.raises(TypeError, match=r"'layers/0/bias': expected float32.*got"):
        update(changed("layers/0/bias", zero))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@every
def test_integer_parameter(optimizer, dtype):
    with pytest.raises(TypeError, match=rf"'layers/0' is {dtype}.*optax\.masked.*None"):
        make(optimizer).init({"layers": [jnp.ones((2, 2), dtype)]})


@pytest.mark.parametrize("value", ["text", object()], ids=["string", "object"])
def test_parameter_that_is_no_array(value):
    with pytest.raises(TypeError, match=r"layers/0"):
        make("sgd").init({"layers": [value]})


@pytest.mark.parametrize("optimizer", ["adafactor", "muon", "sparse_adam"])
def test_complex_parameter_where_pytorch_has_none(optimizer):
    with pytest.raises(ValueError, match=r"complex parameters: 'w' is complex64"):
        make(optimizer).init({"w": jnp.ones((2, 2), jnp.complex64)})


def test_muon_names_the_parameter():
    with pytest.raises(ValueError, match=r"only supports 2D parameters.*\(3,\).*'layers/0/bias'"):
        make("muon").init(PARAMS)


@pytest.mark.parametrize("axes", [(0, 0), (0, 1, 2), (1,), [1, 0], "10", (1, -2)], ids=str)
@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])
def test_axes_that_are_no_permutation(optimizer, axes):
    if axes == [1, 0]:
        make(optimizer, axes=axes).init({"w": jnp.ones((2, 3))})  # a list does as well
        return
    with pytest.raises(ValueError, match=r"axes=.*permutation.*'w'"):
        make(optimizer, axes=axes).init({"w": jnp.ones((2, 3))})


# --- Sparse -------------------------------------------------------------------------------------------


def rows():
    return jo.sparse_rows(jnp.asarray([1]), jnp.ones((1, 3)), 2)


@pytest.mark.parametrize("optimizer", [name for name in NAMES if name not in ("sparse_adam", "muon")])
def test_sparse_gradient_of_a_dense_optimizer(optimizer):
    with pytest.raises(TypeError, match=r"does not support sparse gradients.*'layers/0/kernel'"):
        update(changed("layers/0/kernel", rows()), optimizer=optimizer)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_advice_of_pytorch(optimizer):
    with pytest.raises(TypeError, match=r"please consider SparseAdam instead"):
        update(changed("layers/0/kernel", rows()), optimizer=optimizer)


def test_dense_gradient_of_the_sparse_optimizer():
    tx, params = make("sparse_adam"), {"table": jnp.ones((2, 3))}
    with pytest.raises(TypeError, match=r"'table' is a dense array; expected a BCOO.*sparse_rows"):
        tx.update(params, tx.init(params), params)


def test_sparse_gradient_of_wrong_kind():
    tx, params = make("sparse_adam"), {"table": jnp.ones((2, 3))}
    elements = sparse.BCOO.fromdense(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"'table': expected a BCOO with one sparse dimension.*n_sparse=2"):
        tx.update({"table": elements}, tx.init(params), params)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4)], ids=str)
def test_sparse_gradient_of_wrong_shape(shape):
    tx, params = make("sparse_adam"), {"table": jnp.ones((2, 3))}
    grad = jo.sparse_rows(jnp.asarray([1]), jnp.ones((1, shape[1])), shape[0])
    with pytest.raises(ValueError, match=r"'table': expected shape \(2, 3\), got"):
        tx.update({"table": grad}, tx.init(params), params)


@pytest.mark.parametrize(("ids", "rows"), [((2,), (3, 4)), ((2,), (2,)), ((2, 3), (2, 4))], ids=str)
def test_sparse_rows_of_wrong_shape(ids, rows):
    with pytest.raises(ValueError, match=r"expected rows of shape ids\.shape \+ \(dim,\).*got"):
        jo.sparse_rows(jnp.zeros(ids, jnp.int32), jnp.ones(rows), 10)


def test_sparse_rows_with_float_ids():
    with pytest.raises(TypeError, match=r"sparse_rows.*integer.*float32"):
        jo.sparse_rows(jnp.ones(2), jnp.ones((2, 4)), 10)


# --- States of other parameters -----------------------------------------------------------------------


def test_state_of_another_tree():
    state = make("adam").init({"layers": [{"kernel": jnp.ones((2, 3))}]})
    message = r"state was made for other parameters.*slot 'exp_avg'.*tx\.init\(params\)"
    with pytest.raises(ValueError, match=message):
        update(PARAMS, state=state)


def test_state_of_other_shapes():
    state = make("adam").init(changed("layers/0/bias", jnp.ones(4)))
    with pytest.raises(ValueError, match=r"other parameters.*'exp_avg'.*'layers/0/bias'.*\(3,\).*\(4,\)"):
        update(PARAMS, state=state)


def test_state_of_other_dtypes():
    state = make("adam").init(changed("layers/0/bias", jnp.ones(3, jnp.bfloat16)))
    with pytest.raises((ValueError, TypeError), match=r"'exp_avg'.*'layers/0/bias'.*float32.*bfloat16"):
        update(PARAMS, state=state)


def test_state_of_another_optimizer():
    with pytest.raises(ValueError, match=r"exp_avg"):
        update(PARAMS, state=make("sgd").init(PARAMS), optimizer="adam")


def test_state_in_which_the_parameter_was_absent():
    state = make("adam").init(changed("scale", None))
    with pytest.raises(ValueError, match=r"other parameters.*'scale'"):
        update(PARAMS, state=state)


def test_no_state():
    with pytest.raises((TypeError, ValueError, AttributeError), match=r"state|OptimizerState"):
        make("adam").update(PARAMS, None, PARAMS)


def test_apply_updates_of_another_tree():
    with pytest.raises(ValueError, match=r"scale"):
        jo.apply_updates(PARAMS, {"layers": PARAMS["layers"]})


def test_apply_updates_of_another_shape():
    with pytest.raises((ValueError, TypeError), match=r"kernel|shape"):
        jo.apply_updates({"kernel": jnp.ones((2, 3))}, {"kernel": jnp.ones((3, 2))})
