import math

import numpy as np
import pytest

from jaxopt_core.tuning import Choice, Float, Integer, Space, SpaceError


def draws(space, count=300):
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


def test_draws_cover_their_ranges():
    space = Space(
        {"a": Float(-1.0, 3.0), "b": Float(1e-4, 1e-1, log=True), "c": Integer(2, 4), "d": Choice((1, "x"))}
    )
    found = draws(space)
    assert -1 <= min(c["a"] for c in found) < -0.9 < 2.9 < max(c["a"] for c in found) <= 3
    logs = [math.log10(c["b"]) for c in found]
    assert np.histogram(logs, bins=[-4, -3, -2, -1])[0].min() > 70
    assert {c["c"] for c in found} == {2, 3, 4}
    assert {c["d"] for c in found} == {1, "x"}


def test_a_logarithmic_integer_gives_each_decade_its_share():
    found = [c["n"] for c in draws(Space({"n": Integer(1, 1000, log=True)}))]
    assert min(found) == 1
    assert 0.2 < np.mean(np.asarray(found) < 10) < 0.5


def test_conditions_follow_their_parents_in_any_order():
    space = Space(
        {
            "nesterov": Choice((True, False), when={"momentum": "some"}),
            "momentum": Choice(("none", "some"), when={"optimizer": ("sgd", "rmsprop")}),
            "optimizer": Choice(("sgd", "rmsprop", "adam")),
        }
    )
    for config in draws(space):
        assert ("momentum" in config) == (config["optimizer"] != "adam")
        assert ("nesterov" in config) == (config.get("momentum") == "some")


def test_a_parent_that_is_absent_is_not_none():
    space = Space(
        {
            "c": Choice((True, False)),
            "b": Choice((None, "some"), when={"c": True}),
            "a": Float(0.0, 1.0, when={"b": None}),
        }
    )
    for config in draws(space):
        assert ("a" in config) == (config.get("b", "absent") is None)


TOML = """
epochs = 20
hidden = [64, 32]
[lr]
low = 1e-4
high = 1
log = true
[layers]
low = 1
high = 3
[momentum]
low = 0.5
high = 0.9
when = { optimizer = "sgd" }
[optimizer]
choices = ["sgd", "adam"]
"""


def test_from_toml(tmp_path):
    (tmp_path / "space.toml").write_text(TOML)
    space = Space.from_toml(tmp_path / "space.toml")
    assert space.dimensions["lr"] == Float(1e-4, 1, log=True, when={})
    assert space.dimensions["layers"] == Integer(1, 3, when={})
    assert space.constants == {"epochs": 20, "hidden": (64, 32)}
    assert list(draws(space, 1)[0])[:2] == ["epochs", "hidden"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lr]\nlow = 1\nhigh = 0.5", "lr: expected low < high, found low=1, high=0.5"),
        ("[lr]\nlow = 0\nhigh = 0.5\nlog = true", "lr: a logarithmic range must begin above 0, found low=0"),
        ("[lr]\nlow = 0", "lr: expected low and high, or choices; missing is 'high'"),
        ("[lr]\nlow = 0\nhihg = 1", "lr: unknown key 'hihg'; did you mean 'high'"),
        ("[lr]\nlow = 0\nhigh = nan", "lr: expected bounds that are finite numbers"),
        ("[lr]\nlow = 0\nhigh = '1'", "lr: expected bounds that are finite numbers"),
        (
            "[lr]\nlow = 0.1\nhigh = 0.5\nlog = 'no'",
            "lr: expected log to be true or false, found 'no'",
        ),
        (
            "[lr]\nlow = 0.1\nhigh = 0.5\nwhen = 'sgd'",
            "lr: expected when to be {name: value}, found 'sgd'",
        ),
        ("[opt]\nchoices = ['sgd']", r"opt: expected two or more choices, found \['sgd'\]"),
        ("[opt]\nchoices = ['sgd', 'sgd']", "opt: expected different choices"),
        ("[opt]\nchoices = 3", "opt: expected a list of choices, found 3"),
        (
            "[a]\nlow=0\nhigh=1\nwhen={optimiser='x'}\n[optimizer]\nchoices=['x','y']",
            "did you mean 'optimizer'",
        ),
        (
            "[a]\nlow=0\nhigh=1\nwhen={b='z'}\n[b]\nchoices=['x','y']",
            "a: its condition wants b = 'z', which never",
        ),
        (
            "[a]\nlow=0\nhigh=1\nwhen={b=1}\n[b]\nlow=0\nhigh=1",
            "a: its condition is on 'b', which is a range",
        ),
        (
            "[a]\nchoices=[1,2]\nwhen={b=1}\n[b]\nchoices=[1,2]\nwhen={a=1}",
            "conditions of a, b depend on each other",
        ),
        ("lr = 1", "expected at least one parameter with a range or choices, found none"),
        ("lr = ", "not a TOML file"),
    ],
)
def test_bad_spaces_name_file_and_parameter(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(SpaceError, match=message) as caught:
        Space.from_toml(tmp_path / "bad.toml")
    assert str(caught.value).startswith(str(tmp_path / "bad.toml"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SpaceError, match=r"absent.toml: cannot be read \(No such file"):
        Space.from_toml(tmp_path / "absent.toml")
