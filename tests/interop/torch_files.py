"""PyTorch's side of the tests of files: it writes them, reads them, and says what is in them."""

from __future__ import annotations

import collections
import io
from typing import Any

import ml_dtypes
import numpy as np
import torch

torch.set_num_threads(1)

DTYPES = [
    *(
        "bool",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
    ),
    *("float32", "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"),
    *("float8_e5m2fnuz", "float8_e8m0fnu"),
]


def tensor(dtype: str = "float32", shape: tuple[int, ...] = (3, 4)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(1, 5, shape, generator=generator)
    if dtype.startswith("complex"):
        return torch.complex(values.double(), values.double() / 2).to(getattr(torch, dtype))
    return values.double().to(getattr(torch, dtype))


def to_numpy(value: torch.Tensor) -> np.ndarray:
    """A tensor's numbers, by a way that does not touch a file."""
    value = value.detach().resolve_conj().resolve_neg().contiguous()
    name = str(value.dtype).removeprefix("torch.")
    extended = getattr(ml_dtypes, name, None)
    if extended is None:
        return value.numpy()
    return value.view(torch.uint8 if value.itemsize == 1 else torch.int16).numpy().view(extended)


def views() -> dict[str, torch.Tensor]:
    x = tensor()
    c = tensor("complex64")
    return {
        "contiguous": x,
        "transposed": x.t(),
        "offset": x.flatten()[5:],
        "strided": x[:, ::2],
        "row of a transpose": x.t()[1],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "scalar": torch.tensor(2.5),
        "scalar view": x[1, 2],
        "empty": torch.empty(0, 3),
        "empty view": x[1:1],
        "many dimensions": tensor(shape=(1, 2, 1, 3, 1, 2)),
        "channels last": tensor(shape=(2, 3, 4, 4)).to(memory_format=torch.channels_last),
        "conj": c.conj(),
        "neg": c.conj().imag,
        "conj transposed": c.mH,
        "real": c.real,
        "requires grad": x.clone().requires_grad_(),
        "parameter": torch.nn.Parameter(x.clone()),
        "frozen parameter": torch.nn.Parameter(x.clone(), requires_grad=False),
        "buffer": torch.nn.Buffer(x.clone()),
    }


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 3),
    )


OPTIMIZERS = {
    **{
        name: {}
        for name in ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "ASGD", "Rprop")
    },
    "SGD": {"momentum": 0.9, "lr": 0.1},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adafactor": {},
    "LBFGS": {"max_iter": 3},
    "Muon": {},
}


def trained(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A network and an optimizer after three steps."""
    model = network()
    members = [p for p in model.parameters() if name != "Muon" or p.ndim == 2]
    optimizer = getattr(torch.optim, name)(members, **OPTIMIZERS[name])
    step(model, optimizer, 3)
    return model, optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    x = torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(1))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)


RATES = torch.optim.lr_scheduler
SCHEDULERS = {
    "StepLR": lambda o: RATES.StepLR(o, 2),
    "MultiStepLR": lambda o: RATES.MultiStepLR(o, [1, 1, 3]),  # has a Counter
    "LambdaLR": lambda o: RATES.LambdaLR(o, lambda count: 0.9**count),
    "OneCycleLR": lambda o: RATES.OneCycleLR(o, 0.1, 10),
    "CyclicLR": lambda o: RATES.CyclicLR(o, 0.1, 0.2),
    "CosineAnnealingWarmRestarts": lambda o: RATES.CosineAnnealingWarmRestarts(o, 2),
    "SequentialLR": lambda o: RATES.SequentialLR(o, [RATES.LinearLR(o), RATES.ExponentialLR(o, 0.9)], [1]),
    "ChainedScheduler": lambda o: RATES.ChainedScheduler([RATES.StepLR(o, 2), RATES.ConstantLR(o)]),
    "ReduceLROnPlateau": RATES.ReduceLROnPlateau,
}


def schedulers() -> dict[str, Any]:
    """State dicts of schedulers after two steps."""
    states = {}
    for name, make in SCHEDULERS.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1, momentum=0.9)
        scheduler = make(optimizer)
        for _ in range(2):
            optimizer.step()
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
        states[name] = scheduler.state_dict()
    return states


def training_checkpoint() -> dict[str, Any]:
    """What people save in the middle of a run."""
    model, optimizer = trained("AdamW")
    model[4].weight.data = model[4].weight.data.bfloat16()
    return {
        "epoch": 3,
        "model": model.state_dict(),
        "average": torch.optim.swa_utils.AveragedModel(network()).state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedulers": schedulers(),
        "scaler": torch.amp.GradScaler("cpu", init_scale=2.0**10).state_dict(),
        "rng": {"torch": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state()},
        "best": np.float64(0.25),
        "losses": [1.0, float("inf"), -0.0],
        "shape": model[0].weight.shape,
        "dtype": torch.bfloat16,
        "device": torch.device("cuda", 1),
        "version": torch.__version__,
        "notes": {
            "text": "naïve \ud800",
            "none": None,
            "flag": True,
            "big": -(2**70),
            "raw": b"\x00\xff",
            "z": 1 - 2j,
        },
        "sets": ({1, 2}, frozenset({"a"})),
        "groups": collections.defaultdict(list, {("a", 1): [1]}),
        "history": np.arange(6.0).reshape(2, 3).T,
    }


def data_of(value: Any) -> Any:
    """What :func:`jaxopt_core.interop.load` promises for an object."""
    if isinstance(value, torch.Tensor):
        return to_numpy(value)
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, torch.dtype):
        name = str(value).removeprefix("torch.")
        return np.dtype(getattr(ml_dtypes, name, name))
    if isinstance(value, torch.device | torch.torch_version.TorchVersion):
        return str(value)
    if isinstance(value, dict):
        plain = {key: data_of(part) for key, part in value.items()}
        kind = type(value)
        return kind(plain) if kind in (collections.OrderedDict, collections.Counter) else plain
    if isinstance(value, list | tuple):
        return type(value)(data_of(part) for part in value)
    return value


def save(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()
