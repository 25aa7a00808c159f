"""What a killed run has logged is there when it is resumed."""

import numpy as np
import pytest

from jaxopt_core.training import CsvLogger, Run, read_csv


def log(logger, run, step):
    run.step = step
    logger.on_steps(run, {"loss": np.asarray([float(step)])})


@pytest.fixture
def started():
    """Starts loggers, and closes them when the test is over: a killed process closes nothing."""
    loggers = []

    def start(folder, step):
        logger, run = CsvLogger(folder), Run(state=None)
        run.step = step
        logger.on_start(run)
        loggers.append((logger, run))
        return logger, run

    yield start
    for logger, run in loggers:
        logger.on_end(run)


def test_lines_outlive_a_kill_before_the_next_row(tmp_path, started):
    logger, run = started(tmp_path, 0)
    log(logger, run, 1)
    log(logger, run, 2)
    assert read_csv(tmp_path / "steps.csv") == {"step": [1.0, 2.0], "loss": [1.0, 2.0]}

    started(tmp_path, 1)  # and killed before its first step
    assert read_csv(tmp_path / "steps.csv")["step"] == [1.0]

    logger, run = started(tmp_path, 1)
    log(logger, run, 2)
    assert read_csv(tmp_path / "steps.csv") == {"step": [1.0, 2.0], "loss": [1.0, 2.0]}


def test_a_new_run_begins_a_new_file(tmp_path, started):
    logger, run = started(tmp_path, 0)
    log(logger, run, 1)
    started(tmp_path, 0)
    assert read_csv(tmp_path / "steps.csv") == {}
