"""Text, speech and recommendation models against PyTorch: forward, every gradient, ten training steps."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core import losses, models
from jaxopt_core.models.pure import pure
from tests import oracle_sequences as oracle
from tests.compiling import AS_USERS
from tests.models.quick import blank
from tests.models.transfer import from_torch, to_torch
from tests.thinning import slow_unless

STEPS, LR = 10, 0.05
N, V = 4, 11
rng = np.random.default_rng(0)


def tokens(*shape, vocab=V):
    return rng.integers(1, vocab, shape)


def integers(*numbers):
    return np.array(numbers)


def padding(lengths, steps):
    return np.arange(steps) >= np.array(lengths)[:, None]


def text():
    return (tokens(N, 6) * ~padding((6, 2, 3, 5), 6), integers(6, 2, 3, 5)), (rng.integers(0, 3, N),)


def translation():
    return (tokens(N, 5), tokens(N, 4, vocab=7), integers(5, 2, 1, 4)), (tokens(N, 4, vocab=7),)


def masked():
    return (rng.normal(size=(5, N, 8)), np.triu(np.ones((5, 5), bool), 1), padding((5, 3, 2, 4), 5)), ()


def unmasked():
    return (rng.normal(size=(N, 5, 8)),), ()


def language():
    beyond = padding((6, 4, 2, 5), 6)
    return (tokens(N, 6), ~beyond * 1), (np.where(beyond, -100, tokens(N, 6)),)


def ratings():
    return (rng.integers(0, 6, 8), rng.integers(0, 5, 8)), (rng.normal(size=8) + 3,)


def clicks():
    return (rng.integers(0, 6, 8), rng.integers(0, 5, 8)), (rng.integers(0, 2, 8) * 1.0,)


def speech():
    return (rng.normal(size=(N, 12, 8)), integers(12, 9, 8, 11)), (
        tokens(N, 2, vocab=4),
        integers(2, 1, 2, 1),
    )


class Case(NamedTuple):
    """Ours and PyTorch's, what makes a batch of inputs and targets, and the loss."""

    ours: Any
    theirs: Any
    batch: Any
    loss: str


sizes = functools.partial
CASES = {
    "classifier": Case(
        sizes(models.LSTMClassifier, V, 3, 5, 4, 2, True, padding_idx=0),
        sizes(oracle.LSTMClassifier, V, 3, 5, 4, 2, True, 0),
        text,
        "classes",
    ),
    "seq2seq": Case(
        sizes(models.Seq2Seq, V, 7, 5, 4, 1), sizes(oracle.Seq2Seq, V, 7, 5, 4, 1), translation, "tokens"
    ),
    "encoder": Case(
        sizes(models.TransformerEncoder, 2, 8, 2, dim_feedforward=6, dropout=0.0),
        sizes(oracle.encoder, 2, 8, 2, dim_feedforward=6),
        masked,
        "squares",
    ),
    "encoder, norm first": Case(
        sizes(
            models.TransformerEncoder,
            1,
            8,
            4,
            norm=True,
            remat=True,
            dim_feedforward=6,
            dropout=0.0,
            activation="gelu",
            norm_first=True,
            batch_first=True,
        ),
        sizes(
            oracle.encoder,
            1,
            8,
            4,
            True,
            dim_feedforward=6,
            activation="gelu",
            norm_first=True,
            batch_first=True,
        ),
        unmasked,
        "squares",
    ),
    "gpt2": Case(
        sizes(models.GPT2LMHeadModel, V, 8, 8, 2, 2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        sizes(oracle.GPT2, vocab_size=V, n_positions=8, n_embd=8, n_layer=2, n_head=2),
        language,
        "tokens",
    ),
    "matrix factorisation": Case(
        sizes(models.MatrixFactorization, 6, 5, 3),
        sizes(oracle.MatrixFactorization, 6, 5, 3),
        ratings,
        "ratings",
    ),
    "neural filtering": Case(
        sizes(models.NeuralCF, 6, 5, 3, 3), sizes(oracle.NeuralCF, 6, 5, 3, 3), clicks, "clicks"
    ),
    "speech, gru": Case(
        sizes(models.SpeechModel, 4, 8, 2, 3, 1, "gru"),
        sizes(oracle.SpeechModel, 4, 8, 2, 3, 1, "gru"),
        speech,
        "ctc",
    ),
    "speech, lstm": Case(
        sizes(models.SpeechModel, 4, 8, 2, 3, 1, "lstm"),
        sizes(oracle.SpeechModel, 4, 8, 2, 3, 1, "lstm"),
        speech,
        "ctc",
    ),
}
LOSSES = {
    "classes": losses.cross_entropy,
    "tokens": losses.cross_entropy,
    "ratings": losses.mse_loss,
    "clicks": losses.bce_with_logits,
    "squares": lambda output: (output * jnp.cos(output)).mean(),
    "ctc": lambda output, targets, lengths: losses.ctc_loss(output[0], targets, output[1], lengths),
}


@functools.cache
def batches(name):
    return [CASES[name].batch() for _ in range(STEPS)]


def loaded(make, state, dtype):
    """The pure triple of a model with PyTorch's weights; its own starting values are never computed."""
    graph, *trees = nnx.split(
        nnx.eval_shape(lambda: make(param_dtype=dtype, rngs=nnx.Rngs(0))), nnx.Param, ...
    )
    params, rest = map(nnx.as_pure, trees)
    params, rest = from_torch(state, params), jax.tree.map(blank, rest)
    apply = pure(nnx.merge(graph, params, rest)).apply
    names = {"running_mean": "mean", "running_var": "var"}
    for key, value in state.items():
        *modules, leaf = key.split(".")
        if leaf in names:
            node = functools.reduce(
                lambda tree, part: tree[int(part) if part.isdigit() else part], modules, rest
            )
            node[names[leaf]] = jnp.asarray(value, dtype)
    return apply, params, rest


def statistics(rest):
    """What PyTorch has as floating-point buffers."""
    found = to_torch(rest)
    return {key: value for key, value in found.items() if key.endswith(("running_mean", "running_var"))}


def trained(name, state, dtype):
    case = CASES[name]
    apply, params, rest = loaded(case.ours, state, dtype)
    tx = jo.sgd(lr=LR, momentum=0.9)

    def array(x):
        return x.astype(dtype if x.dtype.kind == "f" else bool if x.dtype.kind == "b" else np.int32)

    def step(carry, batch):
        params, rest, opt_state = carry

        def loss_fn(params):
            output, new = apply(params, rest, *batch[0], train=True)
            return LOSSES[case.loss](output, *batch[1]), (output, new)

        (loss, (output, new)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        output = output[0] if isinstance(output, tuple) else output
        return (jo.apply_updates(params, updates), new, opt_state), (output, loss, grads)

    data = jax.tree.map(lambda *xs: array(np.stack(xs)), *batches(name))

    options = AS_USERS if dtype == jnp.float32 else None

    @functools.partial(jax.jit, compiler_options=options)
    def run(params, rest, data):
        start = (params, rest, tx.init(params))
        (params, rest, _), (outputs, values, grads) = jax.lax.scan(step, start, data)
        return params, rest, outputs[0], values, jax.tree.map(lambda x: x[0], grads)

    params, rest, output, values, grads = run(params, rest, data)
    state = to_torch(params) | statistics(rest)
    return oracle.Run(np.asarray(output), np.asarray(values), to_torch(grads), state)


def distances(run, reference):
    """Largest difference in proportion to the largest element, for each part."""
    found = {}
    for field in oracle.Run._fields:
        ours, theirs = getattr(run, field), getattr(reference, field)
        ours, theirs = ({field: x} if isinstance(x, np.ndarray) else x for x in (ours, theirs))
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert ours[key].shape == theirs[key].shape
            scale = max(np.abs(theirs[key]).max(), 1e-2)
            found[field, key] = np.abs(ours[key] - theirs[key]).max() / scale
    return found


@functools.cache
def theirs(name, dtype):
    case = CASES[name]
    state = oracle.random_weights(case.theirs())
    return state, oracle.trained(case.theirs(), case.loss, batches(name), state, dtype, LR)


@pytest.mark.parametrize("name", slow_unless(lambda name: name not in ("encoder", "speech, lstm"), CASES))
def test_float64(name):
    state, expected = theirs(name, "float64")
    with jax.enable_x64(True):
        found = distances(trained(name, state, jnp.float64), expected)
    assert max(found.values()) < 1e-10, found
    assert all(
        np.abs(expected.state[key] - state[key]).max() > 1e-8 for key in state
    )  # the steps went somewhere


# Of models with the same parts, one.
@pytest.mark.parametrize(
    "name", slow_unless("neural filtering".__eq__, ["classifier", "encoder", "gpt2", "neural filtering"])
)
def test_float32(name):
    """As near to PyTorch in float64 as PyTorch in float32 is, up to a factor for luck."""
    state, expected = theirs(name, "float64")
    noise = max(distances(theirs(name, "float32")[1], expected).values())
    found = distances(trained(name, state, jnp.float32), expected)
    assert max(found.values()) < 5 * noise < 1e-3, (found, noise)
