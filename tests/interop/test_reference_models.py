"""Every reference model's weights, out of a file of PyTorch's and back into one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxopt_core import interop, models
from jaxopt_core.models.resnet import Bottleneck
from tests import oracle_models, oracle_sequences


class Case(NamedTuple):
    """Ours, PyTorch's, and the inputs; images have channels last."""

    ours: Any
    theirs: Any
    inputs: tuple[np.ndarray, ...]


make = functools.partial
rng = np.random.default_rng(0)
IMAGES = (rng.normal(size=(2, 32, 32, 3)).astype(np.float32),)
TOKENS = rng.integers(0, 11, (3, 6))
LENGTHS = np.array([6, 2, 5])
PAIRS = (rng.integers(0, 6, 8), rng.integers(0, 5, 8))
CASES = {
    "mlp": Case(
        make(models.MLP, (12, 8, 5)),
        make(oracle_models.mlp, (12, 8, 5)),
        (IMAGES[0][:, 0, :4].reshape(2, 12),),
    ),
    "resnet": Case(
        make(models.ResNet, Bottleneck, (1, 1, 1, 1), 5, width=4),
        make(oracle_models.resnet, "Bottleneck", (1, 1, 1, 1), 5, 4),
        IMAGES,
    ),
    "densenet": Case(
        make(models.DenseNet, 4, (2, 2), 8, num_classes=5),
        make(oracle_models.densenet, 4, (2, 2), 8, 5),
        IMAGES,
    ),
    "lstm classifier": Case(
        make(models.LSTMClassifier, 11, 3, 5, 4, 2, True, padding_idx=0),
        make(oracle_sequences.LSTMClassifier, 11, 3, 5, 4, 2, True, 0),
        (TOKENS, LENGTHS),
    ),
    "lstm seq2seq": Case(
        make(models.Seq2Seq, 11, 11, 5, 4, 2),
        make(oracle_sequences.Seq2Seq, 11, 11, 5, 4, 2),
        (TOKENS, TOKENS[:, :4], LENGTHS),
    ),
    "gpt2": Case(
        make(models.GPT2LMHeadModel, 11, 8, 8, 2, 2),
        make(oracle_sequences.GPT2, vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2),
        (TOKENS, np.ones_like(TOKENS)),
    ),
    "encoder": Case(
        make(models.TransformerEncoder, 2, 8, 2, dim_feedforward=6, batch_first=True),
        make(oracle_sequences.encoder, 2, 8, 2, dim_feedforward=6, batch_first=True),
        (rng.normal(size=(3, 5, 8)).astype(np.float32),),
    ),
    "matrix factorisation": Case(
        make(models.MatrixFactorization, 6, 5, 3), make(oracle_sequences.MatrixFactorization, 6, 5, 3), PAIRS
    ),
    "neural filtering": Case(
        make(models.NeuralCF, 6, 5, 3, 2, 0.1), make(oracle_sequences.NeuralCF, 6, 5, 3, 2), PAIRS
    ),
    "speech": Case(
        make(models.SpeechModel, 4, 8, 2, 3, 2, "gru"),
        make(oracle_sequences.SpeechModel, 4, 8, 2, 3, 2, "gru"),
        (rng.normal(size=(3, 12, 8)).astype(np.float32), np.array([12, 7, 9])),
    ),
}


def weighted(name: str) -> torch.nn.Module:
    """PyTorch's model as in the middle of training: none of its numbers is exactly zero or one."""
    module = CASES[name].theirs().eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            centre = 1.0 if key.endswith("running_var") or (tensor.ndim == 1 and "weight" in key) else 0.0
            tensor.uniform_(centre - 0.3, centre + 0.3, generator=generator)
        else:
            tensor.fill_(3)
    return module


def network(module: torch.nn.Module) -> torch.nn.Module:
    """What is saved: of Hugging Face's model, the model itself."""
    return getattr(module, "hugging", module)


def theirs(name: str, module: torch.nn.Module) -> np.ndarray:
    inputs = [torch.from_numpy(x) for x in CASES[name].inputs]
    with torch.no_grad():
        output = module(*(x.movedim(-1, 1) if x.ndim == 4 else x for x in inputs))
    return (output[0] if isinstance(output, tuple) else output).numpy()


@pytest.mark.parametrize("name", CASES)
def test_weights_go_through_files_both_ways(name: str, tmp_path: Path) -> None:
    module = weighted(name)
    torch.save(network(module).state_dict(), tmp_path / "there.pt")

    state_dict = interop.load(tmp_path / "there.pt")
    apply, params, rest = models.pure(nnx.eval_shape(lambda: CASES[name].ours(rngs=nnx.Rngs(0))))
    layout = interop.make_layout(params, state_dict, rest=rest)
    params = interop.params_from_torch(state_dict, layout, like=params)
    rest = interop.params_from_torch(state_dict, layout, like=rest, rngs=jax.random.key(0))

    inputs = [jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else x.dtype) for x in CASES[name].inputs]
    forward = jax.jit(functools.partial(apply, train=False))
    output, _ = forward(params, rest, *inputs)
    expected = theirs(name, module)
    ours = np.asarray(output[0] if isinstance(output, tuple) else output)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected) > 1e-3

    interop.save(interop.params_to_torch(params, layout, rest=rest), tmp_path / "back.pt")
    again = CASES[name].theirs().eval()
    loaded = network(again).load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    assert not loaded.missing_keys
    assert not loaded.unexpected_keys
    np.testing.assert_array_equal(theirs(name, again), expected)
