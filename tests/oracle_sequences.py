"""PyTorch's side of the comparisons of text, speech and recommendation models, in torch.nn.

GPT-2 is Hugging Face's own. Weights and gradients are keyed by PyTorch's names, in PyTorch's layout.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(1)

Arrays = dict[str, np.ndarray]


def packed(rnn: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> Any:
    """Outputs and final state of a batch-first recurrent layer over sequences of these lengths."""
    sequence = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    output, state = rnn(sequence)
    return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], state


class LSTMClassifier(nn.Module):
    def __init__(self, vocab, classes, dim, hidden, layers, bidirectional, padding_idx=None):
        super().__init__()
        self.embedding = nn.Embedding(vocab, dim, padding_idx)
        self.lstm = nn.LSTM(dim, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.fc = nn.Linear(hidden * (1 + bidirectional), classes)

    def forward(self, tokens, lengths=None):
        x = self.embedding(tokens)
        _, (h, _) = self.lstm(x) if lengths is None else packed(self.lstm, x, lengths)
        return self.fc(torch.cat([h[-2], h[-1]], 1) if self.lstm.bidirectional else h[-1])


class Seq2Seq(nn.Module):
    def __init__(self, source_vocab, target_vocab, dim, hidden, layers):
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        for part, vocab in ((self.encoder, source_vocab), (self.decoder, target_vocab)):
            part.embedding = nn.Embedding(vocab, dim)
            part.lstm = nn.LSTM(dim, hidden, layers, batch_first=True)
        self.decoder.attention = nn.Linear(hidden, hidden, bias=False)
        self.decoder.combine = nn.Linear(2 * hidden, hidden, bias=False)
        self.decoder.out = nn.Linear(hidden, target_vocab)

    def forward(self, source, target, lengths):
        memory, state = packed(self.encoder.lstm, self.encoder.embedding(source), lengths)
        h, _ = self.decoder.lstm(self.decoder.embedding(target), state)
        scores = h @ self.decoder.attention(memory).transpose(1, 2)
        beyond = torch.arange(source.shape[1]) >= lengths[:, None]
        weights = scores.masked_fill(beyond[:, None], -torch.inf).softmax(-1)
        return self.decoder.out(torch.tanh(self.decoder.combine(torch.cat([weights @ memory, h], -1))))


def encoder(layers: int, dim: int, heads: int, norm: bool = False, **arguments: Any) -> nn.Module:
    """``torch.nn.TransformerEncoder``."""
    layer = nn.TransformerEncoderLayer(dim, heads, dropout=0.0, **arguments)
    return nn.TransformerEncoder(
        layer, layers, nn.LayerNorm(dim) if norm else None, enable_nested_tensor=False
    )


class GPT2(nn.Module):
    """Hugging Face's model, which returns more than logits; its parameters' names lose ``hugging.``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import GPT2Config, GPT2LMHeadModel  # seconds to import: only where needed

        no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = GPT2Config(**no_dropout, **arguments, bos_token_id=0, eos_token_id=0)
        torch.manual_seed(0)
        self.hugging = GPT2LMHeadModel(config)

    def forward(self, tokens, mask=None):
        return self.hugging(tokens, attention_mask=mask).logits


class MatrixFactorization(nn.Module):
    def __init__(self, users, items, factors, sparse=False):
        super().__init__()
        self.user_embeddings = nn.Embedding(users, factors, sparse=sparse)
        self.item_embeddings = nn.Embedding(items, factors, sparse=sparse)
        self.user_biases = nn.Embedding(users, 1, sparse=sparse)
        self.item_biases = nn.Embedding(items, 1, sparse=sparse)
        self.global_bias = nn.Parameter(torch.zeros(1))

    def forward(self, users, items):
        product = (self.user_embeddings(users) * self.item_embeddings(items)).sum(-1)
        return product + (self.user_biases(users) + self.item_biases(items)).squeeze(-1) + self.global_bias


class NeuralCF(nn.Module):
    def __init__(self, users, items, factors, layers):
        super().__init__()
        wide = factors * 2 ** (layers - 1)
        self.embed_user_GMF, self.embed_item_GMF = nn.Embedding(users, factors), nn.Embedding(items, factors)
        self.embed_user_MLP, self.embed_item_MLP = nn.Embedding(users, wide), nn.Embedding(items, wide)
        parts: list[nn.Module] = []
        for i in range(layers):
            width = factors * 2 ** (layers - i)
            parts += [nn.Dropout(0.0), nn.Linear(width, width // 2), nn.ReLU()]
        self.MLP_layers = nn.Sequential(*parts)
        self.predict_layer = nn.Linear(2 * factors, 1)

    def forward(self, users, items):
        product = self.embed_user_GMF(users) * self.embed_item_GMF(items)
        x = self.MLP_layers(torch.cat([self.embed_user_MLP(users), self.embed_item_MLP(items)], -1))
        return self.predict_layer(torch.cat([product, x], -1)).squeeze(-1)


class SpeechModel(nn.Module):
    def __init__(self, classes, features, channels, hidden, layers, rnn):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, channels, (41, 11), (2, 2), (20, 5)),
            nn.BatchNorm2d(channels),
            nn.Hardtanh(0, 20),
            nn.Conv2d(channels, channels, (21, 11), (2, 1), (10, 5)),
            nn.BatchNorm2d(channels),
            nn.Hardtanh(0, 20),
        )
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[rnn]
        rows = channels * -(-features // 4)
        self.rnn = kind(rows, hidden, layers, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, classes)

    def forward(self, spectrogram, lengths):
        beyond = torch.arange(spectrogram.shape[1]) >= lengths[:, None]
        x = spectrogram.masked_fill(beyond[..., None], 0).transpose(1, 2)[:, None]
        lengths = (lengths + 1) // 2
        for layer in self.conv:
            x = layer(x)
            beyond = torch.arange(x.shape[3]) >= lengths[:, None]
            x = x.masked_fill(beyond[:, None, None], 0)
        x = x.flatten(1, 2).transpose(1, 2)
        output, _ = packed(self.rnn, x, lengths)
        return self.fc(output).log_softmax(-1).transpose(0, 1), lengths


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "classes": F.cross_entropy,
    "tokens": lambda logits, labels: F.cross_entropy(logits.flatten(0, -2), labels.flatten()),
    "ratings": F.mse_loss,
    "clicks": F.binary_cross_entropy_with_logits,
    "squares": lambda output: (output * output.cos()).mean(),
    "ctc": lambda output, targets, lengths: F.ctc_loss(output[0], targets, output[1], lengths),
}


class Run(NamedTuple):
    """What came of a training run.

    Attributes:
      output: at the first step; of several, the first.
      losses: of every step.
      grads: of every parameter, at the first step.
      state: parameters and buffers after the last step.
    """

    output: np.ndarray
    losses: np.ndarray
    grads: Arrays
    state: Arrays


def trained(
    module: nn.Module,
    loss: str,
    batches: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]],
    state: Arrays,
    dtype: str,
    lr: float,
) -> Run:
    """SGD with momentum 0.9, one step for each batch of inputs and targets."""
    kind = getattr(torch, dtype)
    module = module.to(kind)
    load(module, state)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9)
    losses: list[float] = []
    for inputs, targets in batches:
        optimizer.zero_grad()
        output = module(*(_tensor(x, kind) for x in inputs))
        value = LOSSES[loss](output, *(_tensor(x, kind) for x in targets))
        value.backward()
        if not losses:
            grads = {_short(k): _array(p.grad) for k, p in module.named_parameters()}
            first = _array(output[0] if isinstance(output, tuple) else output)
        losses.append(value.item())
        optimizer.step()
    return Run(first, np.array(losses), grads, weights(module))


def sparsely_trained(
    module: nn.Module,
    batches: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]],
    state: Arrays,
    lr: float,
) -> Arrays:
    """SparseAdam on the embeddings, Adam on the rest, mean squared error; the parameters after it."""
    module = module.double()
    load(module, state)
    tables = [p for name, p in module.named_parameters() if name != "global_bias"]
    optimizers = [torch.optim.SparseAdam(tables, lr=lr), torch.optim.Adam([module.global_bias], lr=lr)]
    for inputs, targets in batches:
        module.zero_grad()
        F.mse_loss(module(*map(torch.tensor, inputs)), *map(torch.tensor, targets)).backward()
        for optimizer in optimizers:
            optimizer.step()
    return weights(module)


def weights(module: nn.Module) -> Arrays:
    """Parameters and buffers, each tensor once, without the counters of batches."""
    found: Arrays = {}
    kept = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    for name, tensor in module.state_dict().items():
        if name in kept and tensor.is_floating_point():
            found[_short(name)] = _array(tensor)
    return found


def random_weights(module: nn.Module, seed: int = 0) -> Arrays:
    """Weights as in the middle of training: nothing is exactly zero or one, except a row of padding."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, tensor in weights(module).items():
        scale = 1 / np.sqrt(max(tensor.shape[-1], 4)) if tensor.ndim > 1 else 0.2
        centre = 1.0 if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith(".weight")) else 0
        found[name] = centre + scale * rng.uniform(-1, 1, tensor.shape)
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            found[f"{_short(name)}.weight"][part.padding_idx] = 0
    return found


def load(module: nn.Module, state: Arrays) -> None:
    own = module.state_dict()
    for name, tensor in own.items():
        if _short(name) in state:
            tensor.copy_(torch.tensor(state[_short(name)]))


def recurrent(name: str, arguments: Any, x: np.ndarray, state: Any, lengths: Any) -> tuple[Arrays, list[Any]]:
    """A recurrent layer in float64: its weights; outputs, final state, and gradients of ``x`` and weights."""
    torch.manual_seed(0)
    module = getattr(nn, name)(**arguments).double()
    x = torch.tensor(x, requires_grad=True)
    state = [torch.tensor(each, requires_grad=True) for each in state]
    hx = tuple(state) if name == "LSTM" else state[0]
    if lengths is None:
        output, final = module(x, hx)
    else:
        pack = pack_padded_sequence(x, torch.tensor(lengths), module.batch_first, enforce_sorted=False)
        output, final = module(pack, hx)
        output, _ = pad_packed_sequence(output, module.batch_first, total_length=x.shape[module.batch_first])
    finals = list(final) if name == "LSTM" else [final]
    sum((y * y.cos()).sum() for y in [output, *finals]).backward()
    grads = [x.grad, *(each.grad for each in state)]
    names = {key: _array(p.grad) for key, p in module.named_parameters()}
    return weights(module), [*map(_array, [output, *finals, *grads]), names]


def _tensor(x: np.ndarray, kind: torch.dtype) -> torch.Tensor:
    tensor = torch.tensor(x)
    return (
        tensor.to(kind)
        if tensor.is_floating_point()
        else tensor
        if tensor.dtype == torch.bool
        else tensor.long()
    )


def _short(name: str) -> str:
    return name.removeprefix("hugging.").replace("hugging.", "")


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().clone().numpy()
