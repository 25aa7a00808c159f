"""Readers of batches: what an epoch holds, where a resume goes on, and what each process sees."""

import json
from itertools import islice

import grain
import jax
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxopt_core.data import Arrays, FromIterable, Stream, prefetch

EXAMPLES, SIZE = 22, 4
X = np.random.default_rng(0).normal(size=(EXAMPLES, 3)).astype(np.float32)
Y = np.arange(EXAMPLES)


def jitter(example, random):
    return {**example, "x": example["x"] + random.normal(size=3).astype(np.float32)}


class Rows:
    def __len__(self):
        return EXAMPLES

    def __getitem__(self, index):
        return {"x": X[index], "y": Y[index]}

    def __repr__(self):  # by which a grain DataLoader knows its source again
        return "Rows()"


def torch_loader():
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=SIZE)


def grain_batches():
    return grain.MapDataset.source(Rows()).shuffle(seed=5).batch(SIZE).to_iter_dataset()


def grain_loader():
    return grain.DataLoader(
        data_source=Rows(),
        sampler=grain.samplers.IndexSampler(EXAMPLES, shuffle=True, seed=1, num_epochs=1),
        operations=[grain.transforms.Batch(SIZE)],
        worker_count=0,
    )


READERS = {
    "arrays": lambda **kwargs: Arrays({"x": X, "y": Y}, SIZE, **kwargs),
    "stream": lambda **kwargs: Stream(Rows(), SIZE, transform=jitter, **kwargs),
    "torch": lambda: FromIterable(torch_loader(), names=["x", "y"], pad=True),
    "grain": lambda: FromIterable(grain_batches(), pad=True),
    "grain loader": lambda: FromIterable(grain_loader(), pad=True),
    "list": lambda: FromIterable([{"x": X[i : i + SIZE]} for i in range(0, EXAMPLES, SIZE)], pad=True),
    "ahead": lambda: prefetch(Arrays({"x": X, "y": Y}, SIZE)),
    "torch ahead": lambda: prefetch(FromIterable(torch_loader(), names=["x", "y"], pad=True), 3),
}
OWN_ORDER = ["arrays", "stream"]


def draw(data, epochs):
    return [batch for _ in range(epochs) for batch in data]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], strict=True)


@pytest.mark.parametrize("name", READERS)
def test_an_epoch_has_each_example_once_in_batches_of_one_shape(name):
    batches = draw(READERS[name](), 1)
    assert len(batches) == 6
    assert {(b["x"].shape, b["x"].dtype, b["mask"].shape) for b in batches} == {
        ((SIZE, 3), np.dtype("f4"), (SIZE,))
    }
    assert sum(int(b["mask"].sum()) for b in batches) == EXAMPLES
    if name not in ("stream", "list"):
        drawn = np.concatenate([b["y"][b["mask"]] for b in batches])
        np.testing.assert_array_equal(np.sort(drawn), Y)


@pytest.mark.parametrize("stop", [0, 1, 4, 6, 7, 12, 14])
@pytest.mark.parametrize("name", READERS)
def test_a_resumed_run_draws_what_an_uninterrupted_one_does(name, stop):
    whole = draw(READERS[name](), 3)
    first = READERS[name]()
    for _ in range(stop // 6):
        draw(first, 1)
    if stop % 6:
        list(islice(first, stop % 6))
    saved = json.loads(json.dumps(first.state()))
    second = READERS[name]()
    second.restore(saved)
    assert_same(draw(second, 3)[: 18 - stop], whole[stop:])


@pytest.mark.parametrize("name", READERS)
def test_a_look_at_the_first_batches_changes_nothing(name):
    data, untouched = READERS[name](), READERS[name]()
    for count in (1, 2):
        list(islice(data, count))
    assert_same(draw(data, 2), draw(untouched, 2))


@pytest.mark.parametrize("name", OWN_ORDER)
def test_epochs_differ_and_seeds_differ(name):
    data = READERS[name](seed=3)
    first, second = ([b["y"].tolist() for b in data] for _ in range(2))
    assert first != second
    assert first == [b["y"].tolist() for b in READERS[name](seed=3)]
    assert first != [b["y"].tolist() for b in READERS[name](seed=4)]
    straight = [b["y"].tolist() for b in READERS[name](shuffle=False)]
    assert straight[0] == [0, 1, 2, 3]
    assert straight[-1] == [20, 21, 20, 21]


@pytest.mark.parametrize("name", OWN_ORDER)
def test_drop_last(name):
    batches = draw(READERS[name](drop_last=True), 1)
    assert len(batches) == 5
    assert "mask" not in batches[0]
    assert len({int(y) for b in batches for y in b["y"]}) == 20


@pytest.mark.parametrize("name", OWN_ORDER)
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batch_of_one(name, processes):
    alone = draw(READERS[name](), 2)
    shares = [draw(READERS[name](process_index=i, process_count=processes), 2) for i in range(processes)]
    together = [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for parts in zip(*shares, strict=True)
    ]
    assert_same(together, alone)


def test_a_state_of_four_processes_continues_at_one():
    four = Arrays({"y": Y}, SIZE, process_index=3, process_count=4)
    list(islice(four, 2))
    one = Arrays({"y": Y}, SIZE)
    one.restore(four.state())
    assert_same(draw(one, 1), draw(Arrays({"y": Y}, SIZE), 1)[2:])


def test_prefetch_places_by_sharding():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    sharding = NamedSharding(mesh, P("data"))
    batch = next(iter(prefetch(Arrays({"x": X}, SIZE, shuffle=False), sharding=sharding)))
    assert batch["x"].sharding == sharding
    np.testing.assert_array_equal(batch["x"], X[:SIZE])


def test_prefetch_raises_where_the_batch_is_asked_for():
    class Failing(Arrays):
        def _take(self, chosen):
            if 21 in chosen:
                raise OSError("disk gone")
            return super()._take(chosen)

    data = iter(prefetch(Failing({"x": X, "y": Y}, SIZE, shuffle=False)))
    with pytest.raises(OSError, match="disk gone"):
        assert len([next(data) for _ in range(6)]) == 5


WRONG = {
    "none": (lambda: Arrays({}, 2), "at least one array"),
    "scalar": (lambda: Arrays({"x": 3.0}, 2), "'x': expected examples"),
    "unequal": (lambda: Arrays({"x": X, "y": Y[:3]}, 2), r"{'x': 22, 'y': 3}"),
    "empty": (lambda: Arrays({"x": X[:0]}, 2), "at least one example"),
    "mask": (lambda: Arrays({"mask": X}, 2), 'name "mask" is taken'),
    "size": (lambda: Arrays({"x": X}, 0), "positive integer value, but got batch_size=0"),
    "too large": (lambda: Arrays({"x": X}, 23, drop_last=True), "22 examples do not fill a batch of 23"),
    "stream too large": (lambda: Stream(Rows(), 23, drop_last=True), "do not fill a batch of 23"),
    "share": (lambda: Arrays({"x": X}, 6, process_count=4), "choose a multiple of 4"),
    "process": (lambda: Arrays({"x": X}, 4, process_index=2, process_count=2), "from 0 to 1"),
    "ahead": (lambda: prefetch(Arrays({"x": X}, 4), 0), "size of at least 1"),
    "state": (lambda: Arrays({"x": X}, 4).restore({"epoch": 1}), "missing"),
    "iterable's state": (lambda: FromIterable([]).restore({"next": 1}), "not a state"),
    "position": (
        lambda: Arrays({"x": X}, 4).restore({**Arrays({"x": X}, 4).state(), "batch": 6}),
        "a batch below 6",
    ),
    "other size": (
        lambda: Arrays({"x": X}, 4).restore(Arrays({"x": X}, 2).state()),
        "saved with batch_size=2, this data has batch_size=4",
    ),
    "grows": (lambda: draw(FromIterable([{"x": X[:2]}, {"x": X[:3]}], pad=True), 1), "1 to 2 examples"),
    "parts": (lambda: draw(FromIterable([(X, Y)], names=["x"]), 1), "got one with 2 parts"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_kinds():
    with pytest.raises(TypeError, match="got a generator: give the list"):
        FromIterable(batch for batch in [{"x": X}])
    with pytest.raises(TypeError, match="got tuple and names=None"):
        draw(FromIterable([(X, Y)]), 1)
    with pytest.raises(TypeError, match="wrap it in jaxopt_core"):
        prefetch([{"x": X}])
