"""What ``evaluate`` adds to a run's metrics agrees with them, and its pictures are drawn."""

import json
import math
import wave

import numpy as np
import pytest

from jaxopt_core import cli, training
from jaxopt_core.cli.options import TrainOptions
from jaxopt_core.recipes import build_recipe


def examined(task, folder, **options):
    names = {"digits": "mlp", "image": "resnet", "text": "lstm", "speech": "speech", "recommend": "mf"}
    arguments = {"model": names[task], "hidden": (4,), "batch_size": 4, "seed": 0} | options
    recipe = build_recipe(task, TrainOptions(**arguments))
    found = training.evaluate(
        lambda _, batch: recipe.measure(recipe.params, recipe.rest, batch), None, recipe.test
    )
    scores, written = recipe.examine(recipe.params, recipe.rest, folder)
    for name in written:
        is_picture = name.endswith(".png")
        assert (folder / name).read_bytes().startswith(b"\x89PNG" if is_picture else b"")
    return found, scores, written


@pytest.mark.parametrize("task", ["digits", pytest.param("image", marks=pytest.mark.slow)])
def test_images(task, tmp_path):
    found, scores, written = examined(task, tmp_path)
    assert written == ["confusion.png", "roc.png", "mistakes.png", "attributions.png"]
    assert scores["accuracy_low"] <= found["accuracy"] <= scores["accuracy_high"]
    assert 0 <= scores["f1"] <= 1
    assert scores["accuracy_low"] < scores["accuracy_high"]


def test_ratings(tmp_path):
    found, scores, written = examined("recommend", tmp_path)
    assert written == ["errors.png"]
    assert scores["rmse"] == pytest.approx(math.sqrt(found["loss"]), rel=1e-5)
    assert scores["rmse_low"] < scores["rmse"] < scores["rmse_high"]
    assert 0 < scores["hit_rate_10"] < 1


@pytest.mark.slow
def test_text(tmp_path):
    found, scores, written = examined("text", tmp_path)
    assert written == ["positions.png"]
    assert scores["perplexity"] == pytest.approx(math.exp(found["loss"]), rel=1e-4)
    assert scores["bits_low"] < found["bits"] < scores["bits_high"]


def test_recordings(tmp_path):
    """Own recordings are trained on and judged, and what was heard is written beside what was said."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    for i, text in enumerate(["ab ba", "ba", "abba", "b a"]):
        with wave.open(str(data / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(rng.integers(-3000, 3000, 4000 + 500 * i, np.int16).tobytes())
        (data / f"{i}.txt").write_text(text)
    out = tmp_path / "out"
    options = ["--hidden", "4", "--batch-size", "3", "--epochs", "1", "--eval-every", "1"]
    assert cli.main(["train", "speech", "--data", str(data), *options, "--out", str(out)]) == 0
    assert cli.main(["evaluate", str(out)]) == 0
    assert (out / "transcripts.txt").read_text().count("said") == 1  # one in ten, at least one, is held out


@pytest.mark.slow
def test_speech(tmp_path):
    found, scores, written = examined("speech", tmp_path)
    assert written == ["transcripts.txt"]
    assert scores["cer_low"] <= found["cer"] <= scores["cer_high"]
    assert "wrong of" in (tmp_path / "transcripts.txt").read_text()


def test_evaluation_is_written_beside_the_run(tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["--epochs", "1", "--hidden", "8", "--batch-size", "128", "--out", str(run)]
    assert cli.main(["train", "digits", *arguments]) == 0
    assert cli.main(["evaluate", str(run)]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert {"loss", "accuracy", "f1", "roc_auc", "step"} <= set(found)
    assert "confusion.png" in capsys.readouterr().out
    assert (run / "roc.png").is_file()
