"""Different values for different parameters: `by_path` against PyTorch's parameter groups."""

from tests.equivalence.cases.gradients import EVERYTHING
from tests.equivalence.rows import EXACT, By, Row, Schedule, given

__all__ = ["BY_PATH"]

F64 = "float64"
# The first pattern that matches decides: "layers/0/bias" gets 0.01.
RATE = By({"bias$": 0.01, "^layers/0": given(0.2)}, default=0.05)
RATES = {
    0: {"bias$": 0.01, "^layers/0": 0.2, "default": 0.05},
    6: {"bias$": 0.3, "^layers/0": 0.0, "default": 0.1},
}
DECAY = By({"bias$": 0.0}, default=0.1)
ON_WEIGHTS = By({"kernel": 0.9}, default=0.0)
EVERYWHERE = By({"bias$": True}, default=True)
BETAS = By({"layers/1": (0.5, 0.8)}, default=(0.9, 0.99))

BY_PATH = [
    *[Row(o, {**a, "lr": RATE}, F64, 20, EXACT, "layers") for o, a in EVERYTHING.items() if o != "muon"],
    Row("sgd", dict(lr=RATE, weight_decay=DECAY), F64, 20, EXACT, "layers", changes={"lr": RATES}),
    Row("sgd", dict(momentum=ON_WEIGHTS), F64, 20, EXACT, "layers"),
    Row(
        "sgd",
        dict(momentum=ON_WEIGHTS, dampening=By({"0": 0.5}, 0.0)),
        F64,
        20,
        EXACT,
        "layers",
        "some missing",
    ),
    Row("adam", dict(lr=RATE, weight_decay=DECAY, betas=BETAS), F64, 20, EXACT, "layers"),
    Row("adam", dict(lr=RATE, eps=By({"bias": 0.1}, 1e-8)), F64, 20, EXACT, "layers", "some missing"),
    Row("adam", dict(betas=(By({"bias": 0.5}, 0.9), 0.99)), F64, 20, EXACT, "layers"),
    Row(
        "adamw",
        dict(lr=By({"bias": Schedule(lambda t: 0.1 / (t + 1))}, 0.1), weight_decay=DECAY),
        F64,
        20,
        EXACT,
        "layers",
    ),
    Row("nadam", dict(momentum_decay=By({"bias": 0.5}, 4e-3), betas=BETAS), F64, 20, EXACT, "layers"),
    Row("radam", dict(betas=BETAS, weight_decay=DECAY), F64, 20, EXACT, "layers"),
    Row("adamax", dict(betas=BETAS, weight_decay=DECAY), F64, 20, EXACT, "layers"),
    Row("adadelta", dict(rho=By({"bias": 0.5}, 0.9), eps=By({"0": 0.1}, 1e-6)), F64, 20, EXACT, "layers"),
    Row("adagrad", dict(lr_decay=By({"bias": 0.5}, 0.0), weight_decay=DECAY), F64, 20, EXACT, "layers"),
    Row("rmsprop", dict(momentum=ON_WEIGHTS, alpha=By({"bias": 0.5}, 0.9)), F64, 20, EXACT, "layers"),
    Row("rprop", dict(etas=By({"bias": (0.3, 1.5)}, (0.5, 1.2))), F64, 20, EXACT, "layers"),
    Row("asgd", dict(lambd=By({"bias": 0.5}, 1e-4), t0=By({"0": 5}, 1e6)), F64, 20, EXACT, "layers"),
    Row("adafactor", dict(d=By({"bias": 2.0}, 1.0), weight_decay=DECAY), F64, 20, EXACT, "layers"),
    Row("adafactor", dict(eps=(By({"bias": 1e-3}, None), 1e-3)), F64, 20, EXACT, "layers"),
    Row("sgd", dict(momentum=ON_WEIGHTS, nesterov=EVERYWHERE), F64, 20, EXACT, "layers"),
    Row("sgd", dict(momentum=0.9, nesterov=EVERYWHERE, dampening=DECAY), F64, 20, EXACT, "layers"),
]
