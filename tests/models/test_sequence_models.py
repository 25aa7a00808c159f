"""What a model promises beyond its numbers: masks, dropout, starting values, sparse training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core import losses, models
from jaxopt_core.models import pure, recommender
from jaxopt_core.models.attention import MultiheadAttention, attend
from tests import oracle_sequences as oracle
from tests.models.quick import quick
from tests.models.transfer import from_torch, to_torch

rng = np.random.default_rng(0)


def gradient_norms(make, *inputs):
    """Path -> norm of the gradient of the output's mean squared distance from random targets."""

    @jax.jit
    def run():
        apply, params, rest = pure(make(rngs=nnx.Rngs(0)))

        def loss(params):
            output = apply(params, rest, *inputs, train=True)[0]
            target = jax.random.normal(jax.random.key(1), output.shape)
            return jnp.mean((output - target) ** 2)

        return jax.tree.map(lambda leaf: jnp.linalg.norm(leaf.ravel()), jax.grad(loss)(params))

    norms = jax.tree_util.tree_leaves_with_path(run())
    return {jax.tree_util.keystr(path, simple=True, separator="/"): float(norm) for path, norm in norms}


DEPTH = 3


@pytest.mark.slow
@pytest.mark.parametrize("norm_first", [True, False])
def test_gradients_of_the_encoder_by_depth(norm_first):
    sizes = {"dim_feedforward": 64, "dropout": 0.0, "norm": True, "norm_first": norm_first}
    make = functools.partial(models.TransformerEncoder, DEPTH, 32, 4, **sizes)
    norms = gradient_norms(make, rng.normal(size=(8, 4, 32)).astype(np.float32))
    for name in ("linear1/kernel", "linear2/kernel", "self_attn/in_proj_weight"):
        by_depth = [norms[f"layers/{i}/{name}"] for i in range(DEPTH)]
        assert max(by_depth) < 10 * min(by_depth), (name, by_depth)


def test_gradients_of_gpt2_by_depth():
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    make = functools.partial(models.GPT2LMHeadModel, 50, 16, 32, DEPTH, 4, **no_dropout)
    norms = gradient_norms(make, rng.integers(0, 50, (4, 16)).astype(np.int32))
    for name in ("attn/c_attn/weight", "attn/c_proj/weight", "mlp/c_fc/weight", "mlp/c_proj/weight"):
        by_depth = [norms[f"transformer/h/{i}/{name}"] for i in range(DEPTH)]
        assert max(by_depth) < 5 * min(by_depth), (name, by_depth)


def test_gradients_of_an_lstm_reach_its_first_layer():
    make = functools.partial(models.LSTMClassifier, 20, 4, 16, 32, 3)
    norms = gradient_norms(make, rng.integers(0, 20, (8, 12)).astype(np.int32))
    by_depth = [norms[f"lstm/weight_hh_l{i}"] for i in range(3)]
    assert min(by_depth) > 0.01 * max(by_depth)
    assert max(by_depth) < 1


def test_gpt2_looks_neither_ahead_nor_at_padding():
    model = quick(functools.partial(models.GPT2LMHeadModel, 11, 8, 8, 1, 2))
    run = jax.jit(model)
    ids = jnp.asarray(rng.integers(0, 11, (2, 6)))
    mask = jnp.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]])
    logits = run(ids, mask)
    np.testing.assert_array_equal(run(ids.at[:, 5].set(0), mask)[:, :5], logits[:, :5])
    changed = run(jnp.where(mask == 1, ids, 3), mask)
    np.testing.assert_allclose(changed[mask == 1], logits[mask == 1], rtol=1e-5, atol=1e-6)
    assert np.isfinite(logits).all()  # what is before any token attends to nothing


def test_gpt2_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="n_embd must be divisible by n_head, got 8 and 3"):
        models.GPT2LMHeadModel(11, 8, 8, 2, 3, rngs=nnx.Rngs(0))
    model = quick(functools.partial(models.GPT2Model, 11, 4, 8, 1, 2))
    with pytest.raises(ValueError, match="5 tokens, more than the model's n_positions=4"):
        model(jnp.zeros((1, 5), int))


@pytest.mark.parametrize("remat", [True, False])
def test_remat(remat):
    apply, params, rest = pure(quick(functools.partial(models.GPT2Model, 11, 8, 8, 1, 2, remat=remat)))
    program = jax.make_jaxpr(functools.partial(apply, train=True))(params, rest, jnp.zeros((1, 3), jnp.int32))
    assert ("remat" in str(program)) == remat


def test_dropout_of_the_encoder_moves_on():
    sizes = {"dim_feedforward": 8, "dropout": 0.5, "remat": True}
    model = quick(functools.partial(models.TransformerEncoder, 1, 8, 2, **sizes))
    apply, params, rest = pure(model)
    run = jax.jit(apply, static_argnames="train")
    x = jnp.float32(rng.normal(size=(3, 2, 8)))
    first, after = run(params, rest, x, train=True)
    second, _ = run(params, after, x, train=True)
    assert not np.allclose(first, second)


def test_attention_to_nothing_is_zero_and_has_a_gradient():
    x = jnp.float32(rng.normal(size=(1, 3, 1, 2)))
    mask = jnp.array([[-jnp.inf] * 3, [0, -jnp.inf, 0], [0, 0, 0]])[None, None]

    @jax.jit
    def run(x):
        output, pull = jax.vjp(lambda x: attend(x, x, x, mask), x)
        return output, pull(output)[0]

    output, grad = run(x)
    np.testing.assert_array_equal(output[0, 0], 0)
    assert np.isfinite(grad).all()


def test_errors_of_attention():
    with pytest.raises(ValueError, match="embed_dim must be divisible by num_heads"):
        MultiheadAttention(8, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="must be greater than 0"):
        MultiheadAttention(8, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="activation should be relu/gelu, not tanh"):
        models.TransformerEncoderLayer(8, 2, activation="tanh", rngs=nnx.Rngs(0))
    layer = quick(functools.partial(models.TransformerEncoderLayer, 8, 2, 8))
    x = jnp.ones((3, 2, 8))
    with pytest.raises(ValueError, match="The shape of attn_mask is"):
        layer(x, jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="expecting key_padding_mask shape of"):
        layer(x, None, jnp.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="Explicit src_mask should not be set"):
        layer(x, jnp.zeros((3, 3)), None, True)


def test_greedy_decoding_takes_what_the_decoder_finds_likeliest():
    model = quick(functools.partial(models.Seq2Seq, 11, 7, 5, 8, 1))
    source, lengths = jnp.asarray(rng.integers(0, 11, (3, 4))), jnp.array([4, 2, 3])
    tokens = jax.jit(lambda source: model.greedy(source, 1, 5, lengths))(source)
    given = jnp.concatenate([jnp.ones((3, 1), tokens.dtype), tokens[:, :-1]], axis=1)
    logits = jax.jit(lambda source: model(source, given, lengths))(source)
    np.testing.assert_array_equal(logits.argmax(-1), tokens)


def test_speech_does_not_hear_padding():
    model = quick(functools.partial(models.SpeechModel, 5, 8, 2, 4, 1))
    run = jax.jit(model)
    x = jnp.float32(rng.normal(size=(2, 20, 8)))
    log_probs, lengths = run(x, jnp.array([20, 13]))
    noise, _ = run(x.at[1, 13:].set(7.0), jnp.array([20, 13]))
    np.testing.assert_array_equal(lengths, [10, 7])
    np.testing.assert_allclose(noise[:7, 1], log_probs[:7, 1], rtol=1e-5)
    with pytest.raises(ValueError, match="'gru' or 'lstm'"):
        models.SpeechModel(5, rnn="tanh", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="expected a spectrogram"):
        model(jnp.ones((2, 20, 9)))


@pytest.mark.usefixtures("x64")
def test_embeddings_train_with_sparse_adam_as_in_pytorch():
    theirs = oracle.MatrixFactorization(40, 30, 3, sparse=True)
    state = oracle.random_weights(theirs)
    batches = [
        ((rng.integers(0, 40, 6), rng.integers(0, 30, 6)), (rng.normal(size=6) + 3,)) for _ in range(10)
    ]
    expected = oracle.sparsely_trained(theirs, batches, state, lr=0.05)

    make = functools.partial(models.MatrixFactorization, 40, 30, 3, param_dtype=jnp.float64)
    apply, params, rest = pure(quick(make))
    params = from_torch(state, params)
    optimizers = {True: jo.sparse_adam(lr=0.05), False: jo.adam(lr=0.05)}
    tx = optax.partition(optimizers, recommender.is_table(params))

    def loss_fn(params, users, items, ratings):
        predicted, _ = apply(params, rest, users, items, train=True)
        return losses.mse_loss(predicted, ratings), None

    @jax.jit
    def step(params, opt_state, *batch):
        _, grads = recommender.value_and_row_grad(loss_fn)(params, *batch)
        assert grads["user_embeddings"]["embedding"].nse == 6
        updates, opt_state = tx.update(grads, opt_state, params)
        return jo.apply_updates(params, updates), opt_state

    opt_state = jax.jit(tx.init)(params)
    for inputs, targets in batches:
        params, opt_state = step(params, opt_state, *inputs, *targets)
    found = to_torch(params)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12)
    untouched = np.setdiff1d(np.arange(40), np.concatenate([inputs[0] for inputs, _ in batches]))
    assert untouched.size
    np.testing.assert_array_equal(
        found["user_embeddings.weight"][untouched], state["user_embeddings.weight"][untouched]
    )
