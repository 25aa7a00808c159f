import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core.tuning import Choice, Float, Space, StorageError, Trainable, TrialsFailedError, study
from tests.tuning.problems import SHRINKING

ONE = jax.devices()[:1]
SPACE = Space({"lr": Float(0.01, 0.5)})
BOWL = Space({"x": Float(-1.0, 1.0), "kind": Choice((("a", 1), ("b", 2)))})


def bowl(config):
    return (config["x"] - 0.3) ** 2 + config["kind"][1]


def run(train=SHRINKING, space=SPACE, **options):
    metric = {"metric": "loss"} if isinstance(train, Trainable) else {}
    return study(train, space, **{"trials": 12, "batch": 6, "devices": ONE, **metric, **options})


def test_learns_from_batch_to_batch_with_one_program_a_structure():
    found = run(bowl, BOWL, trials=40, batch=8)
    assert [trial.number for trial in found.trials] == list(range(40))
    assert found.programs == 2
    assert found.best.config["kind"] == ("a", 1)
    assert found.best.metrics["value"] < 1.01
    guided = [trial.config["kind"] for trial in found.trials[16:]]
    assert guided.count(("a", 1)) > 0.6 * len(guided)


def test_prunes_two_thirds_of_a_batch_at_a_time():
    seen = []
    found = run(trials=9, batch=9, on_trial=lambda trial, trouble: seen.append(trial.number))
    by_rate = sorted(found.trials, key=lambda trial: -trial.config["lr"])
    assert [len(trial.history) or None for trial in by_rate] == [9, 3, 3, 1, 1, 1, 1, 1, 1]
    assert [trial.status for trial in by_rate] == ["complete"] + ["pruned"] * 8
    assert sorted(seen) == list(range(9))
    assert found.best is by_rate[0]
    assert found.best.metrics["loss"] == pytest.approx((1 - found.best.config["lr"]) ** 18, rel=1e-4)
    assert found.programs == 1


def test_a_trial_that_goes_wrong_ends_alone():
    def train(config):
        if config["kind"] == "raises":
            raise RuntimeError("out of ideas")
        return jnp.log(config["x"])

    space = Space({"x": Float(-1.0, 1.0), "kind": Choice(("good", "raises"))})
    found = run(train, space, trials=24, direction="maximize")
    failures = {trial.failure for trial in found.trials if trial.status == "failed"}
    assert failures == {"RuntimeError: out of ideas", "value is nan"}
    assert len(found.trials) == 24
    best = max(np.log(trial.config["x"]) for trial in found.trials if trial.status == "complete")
    assert found.best.metrics["value"] == pytest.approx(best, rel=1e-5)
    assert len(found.trouble) == sum(trial.status == "failed" for trial in found.trials)


def test_nan_in_the_middle():
    def advance(config, x):
        x = x * config["lr"]
        return x, {"loss": jnp.where(x > 1, jnp.nan, x)}

    growing = Trainable(lambda config: jnp.float32(0.1), advance, parts=9)
    found = run(growing, Space({"lr": Float(1.5, 3.0)}), pruner=None, trials=4)
    assert all(trial.status == "failed" for trial in found.trials)
    assert any("loss is nan after part 3 of 9" in line for line in found.trouble)
    with pytest.raises(
        TrialsFailedError, match="none of 4 trials ended with a finite loss: trial 0: loss is nan"
    ):
        _ = found.best


@pytest.mark.parametrize("file", ["study.db", "study.journal"])
def test_goes_on_where_it_was(tmp_path, file):
    storage = str(tmp_path / file)
    first = run(bowl, BOWL, trials=6, storage=storage)
    second = run(bowl, BOWL, trials=10, storage=storage)
    assert [trial.number for trial in second.trials] == list(range(10))
    assert [trial.config for trial in second.trials[:6]] == [trial.config for trial in first.trials]
    assert second.trials[3].metrics == first.trials[3].metrics
    again = run(bowl, BOWL, trials=10, storage=storage)
    assert (again.programs, len(again.trials)) == (0, 10)
    with pytest.raises(ValueError, match="'study' in this storage has another space, in x, kind: x is Float"):
        run(bowl, Space({"x": Float(-1.0, 2.0)}), storage=storage)
    with pytest.raises(ValueError, match="'study' is there to minimize, not to maximize"):
        run(bowl, BOWL, storage=storage, direction="maximize")


def test_a_stored_study_of_something_else_is_refused(tmp_path):
    about = {"task": "digits", "hidden": (8,)}
    begun = {"trials": 2, "storage": str(tmp_path / "study.journal")}
    run(bowl, BOWL, **begun, fingerprint=about)
    assert run(bowl, BOWL, **begun, fingerprint=about).programs == 0
    for other, message in (
        ({"fingerprint": {**about, "task": "text"}}, "in task: task is digits there and text here"),
        ({"fingerprint": {"task": "digits"}}, r"in hidden: hidden is \[8\] there and not in it here"),
        ({"fingerprint": about, "metric": "loss"}, "in metric: metric is value there and loss here"),
        ({"fingerprint": about, "train": SHRINKING, "metric": "value"}, "in parts: parts is 1 there and 9"),
    ):
        with pytest.raises(ValueError, match=f"'study' in this storage has another fingerprint, {message}"):
            run(**{"train": bowl, "space": BOWL, **begun, **other})


def test_trials_of_earlier_runs_are_shown_too(tmp_path):
    storage = str(tmp_path / "study.journal")
    first = run(bowl, BOWL, trials=3, storage=storage)
    here, other = [], []
    run(
        bowl,
        BOWL,
        trials=5,
        storage=storage,
        on_trial=lambda trial, trouble: here.append(trial.number),
        on_other=lambda trial: other.append((trial.number, trial.metrics)),
    )
    assert here == [3, 4]
    assert other == [(trial.number, trial.metrics) for trial in first.trials]


KILLED = """
import os, signal, sys
from tests.tuning.test_study import BOWL, bowl, run
die = lambda trial, trouble: os.kill(os.getpid(), signal.SIGKILL)
run(bowl, BOWL, trials=8, batch=4, storage=sys.argv[1], on_trial=die)
"""


def test_the_trials_of_a_killed_worker_are_found_and_run_again(tmp_path):
    storage = str(tmp_path / "study.journal")
    done = subprocess.run([sys.executable, "-c", KILLED, storage], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    lost = [line["params"] for line in asked(tmp_path / "study.journal")]
    found = run(bowl, BOWL, trials=8, batch=4, storage=storage)
    assert len(found.trials) == 8
    assert all(trial.status == "complete" for trial in found.trials)
    assert sum("is gone" in line for line in found.trouble) == 3
    rerun = [trial.config for trial in found.trials if trial.number >= 4]
    assert sum(config["x"] in [each["x"] for each in lost[1:]] for config in rerun) == 3


def asked(journal):
    """What the lines of a journal say about the parameters of trials."""
    trials = {}
    for line in map(json.loads, journal.read_text().splitlines()):
        if "param_name" in line:
            trials.setdefault(line["trial_id"], {})[line["param_name"]] = line["param_value_internal"]
    return [{"params": params} for params in trials.values()]


def test_a_locked_storage_is_waited_for_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxopt_core.tuning.storage._BUSY_S", 0.05)
    path = tmp_path / "study.db"
    holder = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    lock = threading.Timer(1.0, holder.rollback)

    def hold(trial, _):
        if trial.number == 1:
            holder.execute("BEGIN EXCLUSIVE")
            lock.start()

    found = run(bowl, BOWL, trials=8, batch=4, storage=f"sqlite:///{path}", on_trial=hold)
    lock.join()
    assert len(found.trials) == 8
    assert any("locked" in line for line in found.trouble)
    assert any("its result is kept until the storage answers" in line for line in found.trouble)
    stored = run(bowl, BOWL, trials=8, storage=f"sqlite:///{path}")
    assert [trial.metrics for trial in stored.trials] == [trial.metrics for trial in found.trials]


def test_a_storage_that_stays_away_ends_the_study_with_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxopt_core.tuning.storage._BUSY_S", 0.05)
    path = tmp_path / "study.db"
    holder = sqlite3.connect(path, isolation_level=None)
    found = run(
        bowl,
        BOWL,
        batch=4,
        storage=f"sqlite:///{path}",
        patience=0.2,
        heartbeat=0.1,
        on_trial=lambda trial, trouble: trial.number == 3 and holder.execute("BEGIN EXCLUSIVE"),
    )
    assert [trial.number for trial in found.trials][:4] == [0, 1, 2, 3]
    assert all(trial.metrics for trial in found.trials)
    assert any("ended early" in line for line in found.trouble)


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("mysql://x/y", "storage: expected sqlite, journal or postgresql, found 'mysql'"),
        ("study.txt", "storage: expected .* or a path that ends in .db or .journal, found 'study.txt'"),
        ("sqlite:////absent/folder/study.db", "cannot open the storage .*: .*unable to open database file"),
        (
            "postgresql://me:secret@127.0.0.1:1/db",
            r"cannot open the storage postgresql://me:\*\*\*@127.* refused",
        ),
    ],
)
def test_storages_that_cannot_be_opened(storage, message):
    with pytest.raises(StorageError, match=message) as caught:
        run(bowl, BOWL, storage=storage)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials: expected a positive number, got 0"),
        ({"direction": "up"}, "direction: expected 'minimize' or 'maximize', got 'up'"),
        ({"sampler": "magic"}, "sampler: expected one of tpe, random, qmc"),
        ({"pruner": "axe"}, "pruner: expected one of halving, median"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        run(bowl, BOWL, **options)


def test_the_metric_must_be_there():
    found = run(metric="accuracy")
    assert found.trials[0].failure == "no metric 'accuracy'; there are loss"


def test_a_metric_that_is_an_array_fails_its_trial():
    found = run(lambda config: config["x"] * jnp.ones(3), BOWL, trials=2)
    assert [trial.failure for trial in found.trials] == [
        "value: expected a real number, found an array of shape (3,)"
    ] * 2


@pytest.mark.parametrize(
    ("value", "failure"),
    [(2**40, "OverflowError: .* int32"), ({"a": 1}, "TypeError: .* unhashable type: 'dict'")],
)
def test_a_value_that_no_program_can_take_fails_its_trials_alone(value, failure):
    space = Space({"x": Float(0.0, 1.0), "seed": Choice((1, value))})
    found = run(lambda config: config["x"], space, trials=8, sampler="random")
    assert len(found.trials) == 8
    assert {trial.config["seed"] == 1 for trial in found.trials} == {True, False}
    for trial in found.trials:
        assert trial.status == ("complete" if trial.config["seed"] == 1 else "failed")
        assert trial.status == "complete" or re.match(failure, trial.failure)


def test_other_samplers_and_a_time_limit():
    assert len(run(bowl, BOWL, sampler="random", pruner="median", trials=4).trials) == 4
    start = time.perf_counter()
    found = run(bowl, BOWL, trials=10**6, batch=2, timeout=0.5)
    assert time.perf_counter() - start < 60
    assert 0 < len(found.trials) < 10**6
