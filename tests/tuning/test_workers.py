"""Workers that start together, are killed, or meet a storage that fails for a moment."""

import itertools
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage

from jaxopt_core.tuning.queue import Queue
from tests.tuning.test_study import BOWL, bowl, run

KILLED = f"{socket.gethostname()}:{2**30}:0"  # no process has such a number


def open_queue(storage, trials):
    options = {"sampler": RandomSampler(0), "pruner": NopPruner(), "fingerprint": {}, "trials": trials}
    return Queue(
        storage, "study", BOWL, "minimize", **options, heartbeat=10.0, patience=1.0, on_trouble=lambda _: None
    )


def lose(study):
    """A trial whose worker was killed."""
    trial = study.ask()
    trial.set_user_attr("worker", KILLED)
    return BOWL.suggest(trial)


def test_lost_trials_beyond_those_wanted_are_not_waited_for(tmp_path):
    storage = str(tmp_path / "study.journal")
    lost = lose(run(bowl, BOWL, trials=4, storage=storage).optuna)
    found = run(bowl, BOWL, trials=4, storage=storage, timeout=20.0)
    assert found.seconds < 10
    assert len(found.trials) == 4
    more = run(bowl, BOWL, trials=6, storage=storage, timeout=20.0)
    assert len(more.trials) == 6
    assert lost in [trial.config for trial in more.trials]


def test_a_lost_trial_that_is_about_to_wait_is_no_end(monkeypatch):
    storage = InMemoryStorage()
    finder, other = open_queue(storage, 1), open_queue(storage, 1)
    lost = lose(finder.study)
    enqueue, finished = finder.study.enqueue_trial, []

    def look_and_enqueue(*args, **options):
        finished.append(other.is_finished())
        enqueue(*args, **options)

    monkeypatch.setattr(finder.study, "enqueue_trial", look_and_enqueue)
    asked = finder.ask(1)
    assert finished == [False]
    assert [trial.config for trial in asked] == [lost]


def failing_once(call):
    failures = iter([StorageInternalError("the server restarts")])

    def fail_first(*args, **options):
        for failure in failures:
            raise failure
        return call(*args, **options)

    return fail_first


@pytest.mark.parametrize("call", ["set_trial_param", "set_trial_user_attr"])
def test_a_storage_that_fails_while_a_trial_is_asked_for_leaves_none_behind(monkeypatch, call):
    monkeypatch.setattr(InMemoryStorage, call, failing_once(getattr(InMemoryStorage, call)))
    found = run(bowl, BOWL, trials=4, batch=2, timeout=10.0)
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    assert all(trial.status == "complete" for trial in found.trials)
    assert found.trouble == ["ask: the storage does not answer (the server restarts)"]


def test_a_storage_that_fails_while_a_lost_trial_is_queued_keeps_it(monkeypatch):
    queue = open_queue(InMemoryStorage(), 1)
    lost = lose(queue.study)
    monkeypatch.setattr(queue.study, "enqueue_trial", failing_once(queue.study.enqueue_trial))
    assert [trial.config for trial in queue.ask(1)] == [lost]


@pytest.fixture
def tables_at_once():
    """Two threads that make the tables of a database have both seen that there are none."""
    meeting, arrivals = threading.Barrier(2, timeout=20), itertools.count()

    def wait(*_, **__):
        if next(arrivals) < 2:
            meeting.wait()

    sqlalchemy.event.listen(sqlalchemy.MetaData, "before_create", wait)
    yield
    sqlalchemy.event.remove(sqlalchemy.MetaData, "before_create", wait)


@pytest.mark.usefixtures("tables_at_once")
@pytest.mark.parametrize("file", ["study.db", "study.journal"])
def test_workers_that_start_together_share_a_fresh_storage(tmp_path, file):
    start = threading.Barrier(2, timeout=20)

    def work(_):
        start.wait()
        return run(bowl, BOWL, trials=12, batch=2, storage=str(tmp_path / file), heartbeat=2.0, timeout=60.0)

    with ThreadPoolExecutor(2) as pool:
        mine, theirs = pool.map(work, range(2))
    for found in (mine, theirs):
        assert len(found.trials) == 12
        assert all(trial.status == "complete" for trial in found.trials)
        assert len({trial.config["x"] for trial in found.trials}) == 12
    assert [trial.metrics for trial in mine.trials] == [trial.metrics for trial in theirs.trials]
