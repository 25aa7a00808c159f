"""Whole training checkpoints to Orbax and back, and the lines that construct their optimizers here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

import jaxopt_core as jo
from jaxopt_core import interop, schedulers
from jaxopt_core.cli.checkpoints import Convert, Port, convert, port
from jaxopt_core.cli.errors import UsageError


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def train(optimizer: str = "AdamW", dtype: Any = torch.float32, steps: int = 4, **arguments: Any) -> Any:
    torch.manual_seed(0)
    model = Net().to(dtype)
    opt = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01, **arguments)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(opt, [3, 7])
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(steps):
        opt.zero_grad()
        scaler.scale(model(torch.randn(8, 3, 6, 6, dtype=dtype)).square().mean()).backward()
        scaler.step(opt)
        scaler.update()
        scheduler.step()
    return {
        "epoch": 5,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": opt.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "args": {"lr": 0.01, "shape": (1, 2), "note": None},
    }


def assert_same(actual: Any, expected: Any, place: str = "") -> None:
    if isinstance(expected, dict):
        assert set(actual) == set(expected), place
        for key, value in expected.items():
            assert_same(actual[key], value, f"{place}/{key}")
    elif isinstance(expected, list | tuple):
        assert type(actual) is type(expected), place
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert_same(a, b, f"{place}[{i}]")
    elif torch.is_tensor(expected):
        assert actual.dtype == expected.dtype, place
        assert torch.equal(actual, expected), place
    else:
        assert actual == expected, place


@pytest.mark.parametrize(
    ("optimizer", "arguments", "dtype"),
    [
        ("AdamW", {"amsgrad": True}, torch.float32),
        ("SGD", {"momentum": 0.9}, torch.float32),
        ("Adafactor", {}, torch.float32),
        ("RMSprop", {}, torch.float64),
    ],
)
def test_there_and_back_is_the_same(optimizer, arguments, dtype, tmp_path):
    original = train(optimizer, dtype, **arguments)
    torch.save(original, tmp_path / "in.pt")
    lines = interop.convert_from_torch(tmp_path / "in.pt", tmp_path / "orbax")
    assert {line.key for line in lines} == set(original)
    assert next(line.what for line in lines if line.key == "optimizer_state_dict") == optimizer
    interop.convert_to_torch(tmp_path / "orbax", tmp_path / "out.pt")
    assert_same(torch.load(tmp_path / "out.pt", weights_only=True), original)


def test_the_converted_optimizer_goes_on(tmp_path):
    torch.save(train(), tmp_path / "in.pt")
    interop.convert_from_torch(tmp_path / "in.pt", tmp_path / "orbax")
    converted = interop.load_converted(tmp_path / "orbax")
    assert int(converted.opt_state.count) == 4
    assert converted.other["scheduler"]["last_epoch"] == 4
    assert converted.rest["bn"]["num_batches_tracked"] == 4
    grads = jax.tree.map(np.ones_like, converted.params)
    updates, state = converted.tx.update(grads, converted.opt_state, converted.params)
    assert int(state.count) == 5
    assert jo.apply_updates(converted.params, updates)["fc"]["weight"].shape == (2, 4)


def test_a_model_alone(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "in.pt")
    interop.convert_from_torch(tmp_path / "in.pt", tmp_path / "orbax")
    interop.convert_to_torch(tmp_path / "orbax", tmp_path / "out.pt")
    assert_same(dict(torch.load(tmp_path / "out.pt")), dict(torch.load(tmp_path / "in.pt")))


def test_command_prints_what_went_where(tmp_path, capsys):
    torch.save(train(), tmp_path / "in.pt")
    convert(Convert(tmp_path / "in.pt", tmp_path / "orbax"))
    out = capsys.readouterr().out
    assert "optimizer_state_dict  AdamW" in out
    assert "scheduler             scheduler" in out
    assert f"wrote {tmp_path / 'orbax'}" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "No model's state dict in the checkpoint, whose entries are 'epoch'"),
        ([1, 2], "Expected a dict in the checkpoint; found a list"),
    ],
)
def test_wrong_checkpoints(content, message, tmp_path):
    torch.save(content, tmp_path / "in.pt")
    with pytest.raises(UsageError, match=message):
        convert(Convert(tmp_path / "in.pt", tmp_path / "orbax"))
    assert not (tmp_path / "orbax").exists()


def test_wrong_files(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UsageError, match=r"text\.pt"):
        convert(Convert(tmp_path / "text.pt", tmp_path / "orbax"))
    (tmp_path / "there").mkdir()
    torch.save(Net().state_dict(), tmp_path / "in.pt")
    with pytest.raises(UsageError, match="is there already"):
        convert(Convert(tmp_path / "in.pt", tmp_path / "there"))
    with pytest.raises(UsageError, match=r"holds no conversion\.json"):
        convert(Convert(tmp_path / "there", tmp_path / "out.pt"))
    with pytest.raises(UsageError, match="expected one optimizer's state dict"):
        port(Port(tmp_path / "in.pt"))


# --- port ---------------------------------------------------------------------------------------------

CYCLE = {"max_lr": 1.0, "total_steps": 50, "pct_start": 0.25, "three_phase": True}
SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 3}),
    ("MultiStepLR", {"milestones": [2, 5, 5]}),
    ("ConstantLR", {"factor": 0.5}),
    ("LinearLR", {"total_iters": 7}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("PolynomialLR", {"total_iters": 30, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 10, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 4, "mode": "triangular2"}),
    ("OneCycleLR", CYCLE),
]


def executed(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(text, names)
    return names


@pytest.mark.parametrize(("name", "arguments"), SCHEDULERS)
def test_printed_schedule_is_pytorchs(name, arguments):
    model = Net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(opt, **arguments)
    text = interop.port(opt.state_dict(), None, scheduler.state_dict())
    made = executed(text)
    schedule = made["schedule"]
    rate = schedule.lr if isinstance(schedule, schedulers.Cycle) else schedule
    for count in range(40):
        group = opt.param_groups[0]
        assert float(rate(count)) == pytest.approx(group["lr"], rel=1e-9)
        if isinstance(schedule, schedulers.Cycle):
            assert float(schedule.momentum(count)) == pytest.approx(group["momentum"], rel=1e-9)
        opt.step()
        scheduler.step()
    assert made["tx"].rule.name == "SGD"


def test_printed_plateau_and_nested_schedules_run():
    opt = torch.optim.AdamW(Net().parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=3, min_lr=0.01)
    text = interop.port(opt.state_dict(), None, plateau.state_dict())
    assert "patience=3" in text
    executed(text)
    parts = [torch.optim.lr_scheduler.LinearLR(opt), torch.optim.lr_scheduler.CosineAnnealingLR(opt, 20)]
    nested = torch.optim.lr_scheduler.SequentialLR(opt, parts, [5])
    assert "sequential_lr([schedulers.linear_lr(" in interop.port(opt.state_dict(), None, nested.state_dict())


def test_printed_groups():
    model = Net()
    named = dict(model.named_parameters())
    opt = torch.optim.AdamW(
        [
            {"params": [(n, p) for n, p in named.items() if n.endswith("weight")], "weight_decay": 0.1},
            {"params": [(n, p) for n, p in named.items() if n.endswith("bias")], "weight_decay": 0.0},
        ],
        lr=0.1,
    )
    text = interop.port(opt.state_dict())
    tx = executed(text)["tx"]
    params = {"conv": {"kernel": np.ones(2), "bias": np.ones(1)}, "bn": {"scale": np.ones(3)}}
    decays = tx.hyperparams.arguments["weight_decay"].tree(params)
    assert decays == {"conv": {"kernel": 0.1, "bias": 0.0}, "bn": {"scale": 0.1}}


def test_unknown_class_is_asked_for():
    group = {"lr": 0.1, "something": 1, "params": [0]}
    with pytest.raises(ValueError, match="does not say which optimizer it is of"):
        interop.port({"state": {}, "param_groups": [group]})


def test_port_command(tmp_path, capsys):
    path: Path = tmp_path / "in.pt"
    torch.save(train(), path)
    port(Port(path))
    out = capsys.readouterr().out
    assert "schedule = schedulers.multi_step_lr(0.01, [3, 7], gamma=0.1)  # 4 steps made" in out
    assert "tx = jo.adamw(lr=schedule)" in out
