"""Hypothesis looks for arguments, shapes and dtypes for which we and PyTorch part."""

import dataclasses
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.equivalence import trees
from tests.equivalence.cases.layout import ORTHOGONAL, ORTHOGONAL_NOISE
from tests.equivalence.harness import check
from tests.equivalence.rows import EXACT, NOISE, Row

# With the one or two leaves of an example PyTorch's noise is measured on a handful of numbers.
TOLERANCES = {"float64": EXACT, "float32": dataclasses.replace(NOISE, ulps=16)}
ORTHOGONAL_TOLERANCES = {"float64": ORTHOGONAL, "float32": dataclasses.replace(ORTHOGONAL_NOISE, ulps=16)}
SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)
SHAPES_OF = {
    "adafactor": st.lists(st.integers(1, 3), max_size=4).map(tuple),  # PyTorch's divides by the size
    "muon": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "sparse_adam": st.tuples(st.integers(1, 6), st.integers(1, 3)),
}
REAL_ONLY = ("adafactor", "muon", "sparse_adam")


def _between(low, high):
    """Floats with few digits, so that a failure is readable."""
    return st.floats(low, high).map(lambda x: float(f"{x:.3g}"))


def _or_off(strategy):
    return st.one_of(st.just(0), strategy)


LR = _between(1e-3, 0.5)
DECAY = _or_off(_between(1e-3, 0.3))
BETAS = st.tuples(_between(0.0, 0.99), _between(0.0, 0.999))
EPS = st.sampled_from([1e-10, 1e-8, 1e-4, 0.1])
FLAG = st.booleans()
ADAM = dict(lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, maximize=FLAG)

ARGUMENTS = {
    "sgd": st.one_of(
        st.fixed_dictionaries(
            dict(
                lr=LR,
                momentum=_or_off(_between(0.1, 1)),
                dampening=_between(0, 1),
                weight_decay=DECAY,
                maximize=FLAG,
            )
        ),
        st.fixed_dictionaries(
            dict(lr=LR, momentum=_between(0.1, 1), nesterov=st.just(True), weight_decay=DECAY)
        ),
    ),
    "adam": st.fixed_dictionaries({**ADAM, "amsgrad": FLAG, "decoupled_weight_decay": FLAG}),
    "adamw": st.fixed_dictionaries({**ADAM, "amsgrad": FLAG}),
    "nadam": st.fixed_dictionaries(
        {**ADAM, "momentum_decay": _between(0, 1), "decoupled_weight_decay": FLAG}
    ),
    "radam": st.fixed_dictionaries({**ADAM, "decoupled_weight_decay": FLAG}),
    "adamax": st.fixed_dictionaries(ADAM),
    "adadelta": st.fixed_dictionaries(
        dict(lr=LR, rho=_between(0, 1), eps=EPS, weight_decay=DECAY, maximize=FLAG)
    ),
    "adagrad": st.fixed_dictionaries(
        dict(
            lr=LR,
            lr_decay=_or_off(_between(0, 1)),
            weight_decay=DECAY,
            initial_accumulator_value=_or_off(_between(0, 1)),
            eps=EPS,
            maximize=FLAG,
        )
    ),
    "rmsprop": st.fixed_dictionaries(
        dict(
            lr=LR,
            alpha=_between(0.3, 0.999),
            eps=EPS,
            weight_decay=DECAY,
            momentum=_or_off(_between(0.1, 1)),
            centered=FLAG,
            maximize=FLAG,
        )
    ),
    "rprop": st.fixed_dictionaries(
        dict(
            lr=LR,
            etas=st.tuples(_between(0.1, 0.9), _between(1.1, 3)),
            step_sizes=st.tuples(_between(0, 0.1), _between(0.1, 1)),
            maximize=FLAG,
        )
    ),
    "asgd": st.fixed_dictionaries(
        dict(
            lr=LR,
            lambd=_or_off(_between(1e-4, 0.5)),
            alpha=_between(0, 2),
            t0=st.integers(0, 6),
            weight_decay=DECAY,
            maximize=FLAG,
        )
    ),
    "adafactor": st.fixed_dictionaries(
        dict(
            lr=LR,
            beta2_decay=_between(-2, 0),
            eps=st.tuples(st.sampled_from([None, 1e-8, 0.1]), _between(0, 1)),
            d=_between(1, 3),
            weight_decay=DECAY,
            maximize=FLAG,
        )
    ),
    "muon": st.fixed_dictionaries(
        dict(
            lr=LR,
            weight_decay=DECAY,
            momentum=_between(0, 0.99),
            nesterov=FLAG,
            eps=EPS,
            ns_steps=st.integers(0, 6),
            adjust_lr_fn=st.sampled_from([None, "original", "match_rms_adamw"]),
        )
    ),
    "sparse_adam": st.fixed_dictionaries(dict(lr=LR, betas=BETAS, eps=EPS, maximize=FLAG)),
}


@pytest.mark.parametrize("examples", [3, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_any_arguments_and_shapes(name, dtype, examples):
    tolerances = ORTHOGONAL_TOLERANCES if name == "muon" else TOLERANCES
    leaf = st.tuples(SHAPES_OF.get(name, SHAPES), st.just(False) if name in REAL_ONLY else FLAG)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize="CI" in os.environ,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(ARGUMENTS[name], st.lists(leaf, min_size=1, max_size=2), st.integers(0, 2**16))
    def agrees(arguments, leaves, seed):
        rng = np.random.default_rng(seed)
        paths = [f"{'complex' if is_complex else 'real'} {i}" for i, (_, is_complex) in enumerate(leaves)]
        params = {
            path: trees.draw(rng, path, shape, dtype) for path, (shape, _) in zip(paths, leaves, strict=True)
        }
        gradients = "rows" if name == "sparse_adam" else "normal"
        check(Row(name, arguments, dtype, 6, tolerances[dtype], gradients=gradients), params)

    agrees()
