"""Every check that PyTorch's constructors make is made here, with PyTorch's words and in its order.

The expected message is never written down: PyTorch is asked for it.
"""

import inspect
import math

import jax
import jax.numpy as jnp
import pytest

import jaxopt_core as jo
from tests import oracle
from tests.equivalence.theirs import CLASSES

NAN = math.nan
WRONG = [
    ("sgd", dict(lr=-0.1)),
    ("sgd", dict(momentum=-0.5)),
    ("sgd", dict(weight_decay=-1e-4)),
    ("sgd", dict(nesterov=True)),
    ("sgd", dict(nesterov=True, momentum=0.9, dampening=0.1)),
    ("sgd", dict(nesterov=True, momentum=0, dampening=0.1)),
    ("adam", dict(lr=-1e-3)),
    ("adam", dict(lr=NAN)),
    ("adam", dict(eps=-1e-8)),
    ("adam", dict(betas=(1.0, 0.999))),
    ("adam", dict(betas=(-0.1, 0.999))),
    ("adam", dict(betas=(0.9, 1.0))),
    ("adam", dict(betas=(0.9, NAN))),
    ("adam", dict(betas=(0, 0.999))),
    ("adam", dict(betas=(0.9, 0))),
    ("adam", dict(weight_decay=-1)),
    ("adamw", dict(lr=-1e-3)),
    ("adamw", dict(eps=-1e-8)),
    ("adamw", dict(betas=(1.0, 0.999))),
    ("adamw", dict(betas=(0.9, 1.5))),
    ("adamw", dict(betas=(0, 0.999))),
    ("adamw", dict(weight_decay=-1)),
    ("nadam", dict(lr=-1e-3)),
    ("nadam", dict(eps=-1e-8)),
    ("nadam", dict(betas=(1.0, 0.999))),
    ("nadam", dict(betas=(0.9, 1.0))),
    ("nadam", dict(weight_decay=-1)),
    ("nadam", dict(momentum_decay=-4e-3)),
    ("radam", dict(lr=-1e-3)),
    ("radam", dict(eps=-1e-8)),
    ("radam", dict(betas=(1.0, 0.999))),
    ("radam", dict(betas=(0.9, 1.0))),
    ("radam", dict(weight_decay=-1)),
    ("adamax", dict(lr=-1e-3)),
    ("adamax", dict(eps=-1e-8)),
    ("adamax", dict(betas=(1.0, 0.999))),
    ("adamax", dict(betas=(0.9, 1.0))),
    ("adamax", dict(weight_decay=-1)),
    ("adadelta", dict(lr=-1.0)),
    ("adadelta", dict(rho=1.1)),
    ("adadelta", dict(rho=-0.1)),
    ("adadelta", dict(eps=-1e-6)),
    ("adadelta", dict(weight_decay=-1)),
    ("adagrad", dict(lr=-1e-2)),
    ("adagrad", dict(lr_decay=-0.1)),
    ("adagrad", dict(weight_decay=-1)),
    ("adagrad", dict(initial_accumulator_value=-0.5)),
    ("adagrad", dict(eps=-1e-10)),
    ("rmsprop", dict(lr=-1e-2)),
    ("rmsprop", dict(eps=-1e-8)),
    ("rmsprop", dict(momentum=-0.9)),
    ("rmsprop", dict(weight_decay=-1)),
    ("rmsprop", dict(alpha=-0.99)),
    ("rprop", dict(lr=-1e-2)),
    ("rprop", dict(etas=(0, 1.2))),
    ("rprop", dict(etas=(1.0, 1.2))),
    ("rprop", dict(etas=(0.5, 1.0))),
    ("rprop", dict(etas=(1.2, 0.5))),
    ("asgd", dict(lr=-1e-2)),
    ("asgd", dict(weight_decay=-1)),
    ("adafactor", dict(lr=-1e-2)),
    ("adafactor", dict(beta2_decay=0.8)),
    ("adafactor", dict(eps=(-1e-3, 1e-3))),
    ("adafactor", dict(eps=(None, -1e-3))),
    ("adafactor", dict(d=0.5)),
    ("adafactor", dict(weight_decay=-0.1)),
    ("muon", dict(lr=-1e-3)),
    ("muon", dict(momentum=-0.95)),
    ("muon", dict(weight_decay=-0.1)),
    ("muon", dict(adjust_lr_fn="spectral")),
    ("sparse_adam", dict(lr=-1e-3)),
    ("sparse_adam", dict(lr=0)),
    ("sparse_adam", dict(eps=0.0)),
    ("sparse_adam", dict(eps=-1.0)),
    ("sparse_adam", dict(betas=(1.0, 0.999))),
    ("sparse_adam", dict(betas=(0.9, 1.0))),
    # The first check that fails speaks.
    ("sgd", dict(lr=-1, momentum=-1, weight_decay=-1)),
    ("sgd", dict(momentum=-1, weight_decay=-1, nesterov=True)),
    ("adam", dict(lr=-1, eps=-1, betas=(2.0, 2.0), weight_decay=-1)),
    ("adam", dict(betas=(2, 2.0), weight_decay=-1)),
    ("adam", dict(weight_decay=-1, betas=(0, 0.9))),
    ("nadam", dict(weight_decay=-1, momentum_decay=-1)),
    ("adadelta", dict(rho=2, eps=-1, weight_decay=-1)),
    ("adagrad", dict(lr_decay=-1, weight_decay=-1, initial_accumulator_value=-1, eps=-1)),
    ("rmsprop", dict(eps=-1, momentum=-1, weight_decay=-1, alpha=-1)),
    ("rprop", dict(lr=-1, etas=(2, 2))),
    ("adafactor", dict(beta2_decay=1, eps=(-1, -1), d=0, weight_decay=-1)),
    ("muon", dict(momentum=-1, weight_decay=-1, adjust_lr_fn="spectral")),
    ("sparse_adam", dict(lr=0, eps=0, betas=(2.0, 2.0))),
]
# What PyTorch finds out in its first step only; here it is an error of the constructor.
LATER = [
    ("muon", dict(ns_coefficients=(1.0, 2.0)), "exactly 3 values"),
    ("muon", dict(ns_steps=100), "must be less than 100"),
]
# At the edges of what is allowed. What PyTorch forgets to check (a learning rate of NaN in SGD) is no row.
RIGHT = [
    ("sgd", dict(lr=0, momentum=0, dampening=2.0, weight_decay=0)),
    ("sgd", dict(momentum=1.5, dampening=-1.0)),
    ("adam", dict(lr=0, eps=0, betas=(0.0, 0.0), weight_decay=0)),
    ("adamw", dict(lr=0, eps=0, betas=(0.0, 0.0), weight_decay=0)),
    ("nadam", dict(lr=0, eps=0, betas=(0, 0), weight_decay=0, momentum_decay=0)),
    ("radam", dict(lr=0, eps=0, betas=(0, 0.5), weight_decay=0)),
    ("adamax", dict(lr=0, eps=0, betas=(0, 0), weight_decay=0)),
    ("adadelta", dict(lr=0, rho=0, eps=0, weight_decay=0)),
    ("adadelta", dict(rho=1)),
    ("adagrad", dict(lr=0, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=0)),
    ("rmsprop", dict(lr=0, alpha=1.5, eps=0, weight_decay=0, momentum=0)),
    ("rprop", dict(lr=0, etas=(1e-6, 1.0001), step_sizes=(0, 0))),
    ("asgd", dict(lr=0, lambd=-1.0, alpha=-1.0, t0=-1.0, weight_decay=0)),
    ("adafactor", dict(lr=0, beta2_decay=0, eps=(0, 0), d=1, weight_decay=0)),
    ("muon", dict(lr=0, momentum=0, weight_decay=0, ns_steps=0, eps=-1.0)),
    ("muon", dict(ns_steps=99)),
    ("sparse_adam", dict(lr=1e-30, eps=1e-30, betas=(0, 0))),
]
# What PyTorch refuses about parameters and gradients: name, shape, dtype.
PARAMETERS = [
    ("muon", (3,), "float32"),
    ("muon", (), "float32"),
    ("muon", (3, 2, 2), "float32"),
    ("muon", (2, 2), "complex64"),
    ("adafactor", (2, 2), "complex64"),
    ("sparse_adam", (2, 2), "complex64"),
]


def _name(value):
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("name", "arguments"), WRONG, ids=_name)
def test_wrong_arguments_raise_in_pytorch_s_words(name, arguments):
    expected = oracle.constructor_error(CLASSES[name], arguments)
    assert expected is not None, "PyTorch accepts this: the row is wrong"
    error, message = expected
    with pytest.raises(error) as raised:
        getattr(jo, name)(**arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize(("name", "arguments", "phrase"), LATER, ids=_name)
def test_what_pytorch_finds_out_later_raises_at_once(name, arguments, phrase):
    error, message = oracle.constructor_error(CLASSES[name], arguments)
    assert phrase in message
    with pytest.raises(error, match=phrase):
        getattr(jo, name)(**arguments)


@pytest.mark.parametrize(("name", "arguments"), RIGHT, ids=_name)
def test_what_pytorch_accepts_is_accepted(name, arguments):
    assert oracle.constructor_error(CLASSES[name], arguments) is None
    getattr(jo, name)(**arguments).init(jnp.ones((2, 2)))


NUMERIC = [
    (name, arguments) for name, arguments in WRONG if not set(arguments) & {"nesterov", "adjust_lr_fn"}
]


@pytest.mark.parametrize(("name", "arguments"), NUMERIC, ids=_name)
def test_arrays_and_tracers_pass(name, arguments):
    """What is inside of an array is unknown while tracing, so it is not looked at."""
    arrays = jax.tree.map(jnp.float32, arguments)
    getattr(jo, name)(**arrays)

    def init(values):
        return getattr(jo, name)(**values).init(jnp.ones((2, 2)))

    jax.eval_shape(init, arrays)


def test_nesterov_with_an_array_of_momentum_passes():
    jo.sgd(momentum=jnp.float32(0.0), nesterov=True).init(jnp.ones(2))


SINGLE = [(name, *row.items()) for name, row in NUMERIC if len(row) == 1]


@pytest.mark.parametrize(("name", "argument"), SINGLE, ids=str)
def test_each_value_of_by_path_is_checked(name, argument):
    argument, value = argument
    default = inspect.signature(getattr(jo, name)).parameters[argument].default
    error, message = oracle.constructor_error(CLASSES[name], {argument: value})
    with pytest.raises(error) as raised:
        getattr(jo, name)(**{argument: jo.by_path({"bias": value}, default=default)})
    assert str(raised.value) == message


@pytest.mark.parametrize(("name", "shape", "dtype"), PARAMETERS, ids=_name)
def test_parameters_that_pytorch_refuses(name, shape, dtype):
    expected = oracle.constructor_error(CLASSES[name], {}, shape, dtype)
    assert expected is not None
    known = ("Muon only supports 2D parameters", "does not support complex parameters")
    phrase = next(phrase for phrase in known if phrase in expected[1])
    with pytest.raises(ValueError, match=r"does not support complex|only supports 2D") as raised:
        getattr(jo, name)().init({"here": jnp.ones(shape, dtype)})
    assert phrase in str(raised.value)
    assert "'here'" in str(raised.value), "the error names the parameter"


OUR_OWN = {"axes"}
EXECUTION = {"foreach", "fused", "capturable", "differentiable"}


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_have_pytorch_s_names_order_and_defaults(name):
    ours = inspect.signature(getattr(jo, name)).parameters
    theirs = oracle.signature(CLASSES[name])
    assert {n: p.default for n, p in ours.items() if n not in OUR_OWN} == {
        n: default for n, default in theirs.items() if n not in EXECUTION
    }
    positional = [n for n, p in ours.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert positional == [n for n in theirs if n not in EXECUTION][: len(positional)]
