"""The digits recipe, written in PyTorch from the same start on the same batches, has the same loss curve."""

import jax
import numpy as np
import torch

from jaxopt_core.cli.options import Digits
from jaxopt_core.data import Arrays
from jaxopt_core.recipes import build_optimizer, build_recipe
from jaxopt_core.recipes.classification import classifier
from jaxopt_core.training import Callback, fit, init_state, make_step

STEPS = 220


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_steps(self, _, metrics):
        self.values.extend(metrics["loss"].tolist())


def batches(recipe):
    return Arrays(recipe.train.arrays, recipe.train.batch_size, seed=0, drop_last=True)


def with_torch(params, data, options, updates):
    """The same recipe as its PyTorch user writes it."""
    kernels = [params["layers"][i] for i in range(len(params["layers"]))]
    shapes = [layer["kernel"].shape for layer in kernels]
    model = torch.nn.Sequential(torch.nn.Linear(*shapes[0]), torch.nn.ReLU(), torch.nn.Linear(*shapes[1]))
    with torch.no_grad():
        for linear, layer in zip((model[0], model[2]), kernels, strict=True):
            linear.weight.copy_(torch.from_numpy(np.array(layer["kernel"]).T))
            linear.bias.copy_(torch.from_numpy(np.array(layer["bias"])))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    losses = []
    while len(losses) < STEPS:
        for batch in data:
            logits = model(torch.from_numpy(batch["images"]))
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch["labels"]).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
    return losses[:STEPS]


def test_the_same_recipe_has_the_same_loss_curve():
    from flax import nnx

    from jaxopt_core.models import MLP, pure

    options = Digits(hidden=(32,), lr=1e-3)
    recipe = build_recipe("digits", options)
    updates = len(recipe.train) * options.epochs
    tx, _ = build_optimizer(options, updates)
    # Without the random crops, whose places no generator of PyTorch's draws.
    apply, params, rest = pure(MLP((64, 32, 10), rngs=nnx.Rngs(0)))
    loss_fn, _ = classifier(apply)
    expected = with_torch(jax.tree.map(np.array, params), batches(recipe), options, updates)
    record = Losses()
    fit(
        init_state(params, rest, tx),
        batches(recipe),
        make_step(loss_fn, tx),
        max_steps=STEPS,
        callbacks=[record],
    )
    assert expected[-1] < expected[0] / 2
    # Rounding differs; at step 200 it has grown to about 1e-5.
    np.testing.assert_allclose(record.values, expected, rtol=1e-3, atol=1e-5)
