"""Random nested containers of random views: saved here, the same when read here and in PyTorch."""

import collections

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

from jaxopt_core import interop
from jaxopt_core.interop._dtypes import DTYPES
from tests.interop import torch_files
from tests.interop.compare import assert_same

numbers = st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.complex_numbers()
scalars = st.none() | numbers | st.text() | st.binary(max_size=20)
keys = st.text(max_size=5) | st.integers(-(2**63), 2**63) | st.tuples(st.text(max_size=2), st.booleans())


@st.composite
def arrays(draw):
    """Views of a few memories, so that some overlap."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    array = (np.arange(np.prod(shape, dtype=int)) % 3).astype(np.float32).astype(dtype).reshape(shape)
    views = [array]
    for _ in range(draw(st.integers(0, 2))):
        view = draw(st.sampled_from(views)).transpose()
        steps = st.slices(5) if draw(st.booleans()) else st.just(slice(None))
        views.append(view[(*(draw(steps) for _ in view.shape), ...)])
    return draw(st.permutations(views))


def containers(parts):
    return st.one_of(
        st.lists(parts, max_size=4),
        st.lists(parts, max_size=3).map(tuple),
        st.dictionaries(keys, parts, max_size=4),
        st.dictionaries(keys, parts, max_size=4).map(collections.OrderedDict),
    )


@settings(max_examples=80, deadline=None)
@given(value=st.recursive(scalars | arrays(), containers, max_leaves=12))
def test_round_trip(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "round_trip.pt"
    interop.save(value, path)
    content = path.read_bytes()
    loaded = interop.load(path)
    assert_same(as_written(loaded), as_written(value))
    assert_same(as_written(torch_files.data_of(torch.load(path, weights_only=True))), as_written(value))
    interop.save(loaded, path)
    assert_same(as_written(interop.load(path)), as_written(value))
    interop.save(value, path)
    assert path.read_bytes() == content


def as_written(value):
    """The same with arrays in C order: strides are not compared."""
    if isinstance(value, np.ndarray):
        return np.array(value, order="C")
    if isinstance(value, dict):
        return type(value)((key, as_written(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return type(value)(as_written(part) for part in value)
    return value
