"""Attributions against their definitions and PyTorch's gradients; outputs and norms of layers; pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxopt_core.evaluation import (
    Confusion,
    RocCurve,
    activation_scales,
    integrated_gradients,
    layer_norms,
    layer_outputs,
    plot_attributions,
    plot_confusion,
    plot_layers,
    plot_mistakes,
    plot_roc,
    roc_curves,
    saliency,
)
from jaxopt_core.models import MLP, SpeechModel, resnet18

RANDOM = np.random.default_rng(0)
W1 = RANDOM.normal(size=(6, 8)).astype(np.float32)
W2 = RANDOM.normal(size=(8, 3)).astype(np.float32)
X = RANDOM.normal(size=(4, 2, 3)).astype(np.float32)


def network(x):
    return jnp.tanh(x.reshape(len(x), 6) @ W1) @ W2


def torch_gradients(x, classes):
    leaf = torch.from_numpy(x).requires_grad_()
    scores = torch.tanh(leaf.reshape(len(x), 6) @ torch.from_numpy(W1)) @ torch.from_numpy(W2)
    scores[torch.arange(len(x)), torch.from_numpy(classes)].sum().backward()
    return leaf.grad.numpy()


def test_saliency_is_the_absolute_gradient():
    likeliest = np.array(network(X).argmax(axis=1))
    np.testing.assert_allclose(
        saliency(network, X), np.abs(torch_gradients(X, likeliest)), rtol=1e-4, atol=1e-6
    )
    classes = np.array([0, 1, 2, 0])
    np.testing.assert_allclose(
        saliency(network, X, classes), np.abs(torch_gradients(X, classes)), rtol=1e-4, atol=1e-6
    )


def test_integrated_gradients_are_the_integral_and_complete():
    classes = np.array([2, 1, 0, 2])
    baseline = np.full((2, 3), 0.1, np.float32)
    found = integrated_gradients(network, X, classes, baseline=baseline, steps=200)
    fractions = (np.arange(200) + 0.5) / 200
    mean = np.mean(
        [torch_gradients((baseline + f * (X - baseline)).astype(np.float32), classes) for f in fractions],
        axis=0,
    )
    np.testing.assert_allclose(found.attributions, (X - baseline) * mean, rtol=1e-3, atol=1e-5)
    rows = np.arange(4)
    difference = network(X)[rows, classes] - network(baseline[None])[0, classes]
    np.testing.assert_allclose(found.difference, difference, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.attributions.sum(axis=(1, 2)), difference, atol=1e-3)
    np.testing.assert_allclose(found.gap, difference - found.attributions.sum(axis=(1, 2)), atol=1e-5)


def test_integrated_gradients_check_completeness():
    def steep(x):  # all of it happens in a hundredth of the way
        return jax.nn.sigmoid(400 * (x - 0.5))

    with pytest.raises(ValueError, match=r"sum to .*, but its score .* by 1: take more than 16 steps"):
        integrated_gradients(steep, jnp.ones((1, 1)), steps=16)
    found = integrated_gradients(steep, jnp.ones((1, 1)), steps=2000)
    assert abs(float(found.gap[0])) < 0.01
    with pytest.raises(ValueError, match="take more than 4 steps"):
        integrated_gradients(lambda x: x / 0, jnp.ones((1, 1)), steps=4)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        integrated_gradients(network, X, steps=0)


def test_layer_outputs_are_what_the_layers_give():
    model = MLP((6, 5, 3), rngs=nnx.Rngs(0))
    first, last = model.layers
    x = jnp.asarray(X.reshape(4, 6))
    outputs = jax.jit(lambda x: layer_outputs(model, x))(x)
    assert sorted(outputs) == ["", "layers/0", "layers/1"]
    np.testing.assert_allclose(outputs["layers/0"], first(x), rtol=1e-6)
    np.testing.assert_allclose(outputs[""], last(jax.nn.relu(first(x))), rtol=1e-6)
    scales = activation_scales(model, x)
    assert float(scales["layers/0"]) == pytest.approx(float(jnp.sqrt((first(x) ** 2).mean())), rel=1e-5)


def test_layer_outputs_leave_the_classes_as_they_were():
    def calls():
        return {cls: cls.__dict__.get("__call__") for cls in {type(m) for _, m in nnx.iter_modules(model)}}

    model = MLP((6, 5, 3), rngs=nnx.Rngs(0))
    before = calls()
    layer_outputs(model, jnp.ones((1, 6)))
    with pytest.raises(TypeError):
        layer_outputs(model, jnp.ones((1, 7)))
    assert calls() == before


def residual():
    return resnet18(num_classes=4, rngs=nnx.Rngs(0))


def recurrent():  # with a scan inside
    return SpeechModel(5, features=16, channels=2, hidden_size=4, num_layers=1, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (residual, (2, 32, 32, 3), {"conv1", "bn1", "layer1/0/conv2", "layer4/1/bn2", "fc", ""}),
        (recurrent, (1, 20, 16), {"conv/0", "conv/1", "rnn", "fc", ""}),
    ],
)
def test_layer_outputs_of_whole_models(make, shape, expected):
    # Only traced: the names of the layers are known without running them.
    assert expected <= jax.eval_shape(lambda x: layer_outputs(make(), x), jnp.ones(shape)).keys()


def test_layer_norms():
    tree = {"a": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.array([3.0, 0.0])}, "b": jnp.array([1 + 1j])}
    norms = layer_norms(tree)
    np.testing.assert_allclose([norms["a"], norms["b"]], [5, np.sqrt(2)], rtol=1e-6)
    half = layer_norms({"w": {"x": jnp.full(4, 300, jnp.float16)}})  # whose square is beyond float16
    assert float(half["w"]) == 600


def assert_png(path, least=4000):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > least


def test_pictures(tmp_path):
    confusion = Confusion(3)
    confusion.add([0, 0, 1, 1, 1], [0, 1, 1, 1, 0])
    plot_confusion(tmp_path / "confusion.png", confusion, ["cat", "a long-haired dog", "bird"])
    plot_roc(tmp_path / "roc.png", roc_curves([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]))
    images = RANDOM.random((4, 5, 6, 3))
    sure = np.eye(3)[[0, 1, 2, 2]] * 0.9 + 0.1 / 3
    wrong = plot_mistakes(tmp_path / "mistakes.png", images, [0, 0, 2, 1], sure, ["cat", "dog", "bird"])
    assert wrong == 2
    assert plot_mistakes(tmp_path / "none.png", images, [0, 1, 2, 2], sure) == 0
    maps = {"saliency": np.abs(images), "integrated": images - 0.5}
    plot_attributions(tmp_path / "attributions.png", images, maps, titles="abcd")
    layers = {"first": [1.0, 0.1, np.nan], "dead": [1e-3, 0.0, 0.0], "last": [10, 1, np.inf]}
    plot_layers(tmp_path / "layers.png", [1, 10, 20], layers, "Norm of the gradient")
    for path in tmp_path.glob("*.png"):
        assert_png(path)


PICTURES_REFUSED = {
    "confusion": (lambda p: plot_confusion(p, Confusion(2)), "at least one example to draw"),
    "roc": (lambda p: plot_roc(p, []), "at least one curve"),
    "mistakes": (lambda p: plot_mistakes(p, X, [0], np.ones((4, 3))), r"got shapes \(4, 2, 3\), \(1,\)"),
    "maps": (lambda p: plot_attributions(p, X, {"s": X[:, :1]}), "s: expected the images' shape"),
    "layers": (lambda p: plot_layers(p, [1, 2], {"a": [1.0]}, ""), "expected 2 numbers for each"),
    "no layer": (lambda p: plot_layers(p, [1, 2], {}, ""), "expected 2 numbers for each"),
}


@pytest.mark.parametrize("name", PICTURES_REFUSED)
def test_pictures_refused(tmp_path, name):
    draw, message = PICTURES_REFUSED[name]
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()


def test_roc_picture_of_many_classes(tmp_path):
    line = np.linspace(0, 1, 5)
    plot_roc(tmp_path / "many.png", [RocCurve(str(i), line, line ** (1 / (i + 1)), 0.5) for i in range(30)])
    assert_png(tmp_path / "many.png")
