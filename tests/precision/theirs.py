"""The networks of ``nets.py`` in PyTorch, and one step of each with and without ``torch.autocast``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.precision.nets import HEADS

__all__ = ["run_torch"]


def mlp(p: Any, x: Any, y: Any) -> Any:
    for i in range(3):
        x = F.linear(x, p[f"w{i}"].T, p[f"b{i}"])
        x = torch.relu(x) if i < 2 else x
    return x, F.cross_entropy(x, y)


def conv(p: Any, x: Any, y: Any) -> Any:
    for i in range(2):
        x = F.conv2d(x, p[f"k{i}"], padding=1)
        x = F.batch_norm(x, None, None, p[f"g{i}"], p[f"c{i}"], training=True)
        x = F.max_pool2d(torch.relu(x), 2)
    x = F.linear(x.mean((2, 3)), p["w"].T, p["b"])
    return x, F.cross_entropy(x, y)


def transformer(p: Any, x: Any, y: Any) -> Any:
    h = F.layer_norm(x, x.shape[-1:], p["g0"], p["c0"])
    q, k, v = ((h @ p[name]).unflatten(-1, (HEADS, -1)).transpose(1, 2) for name in "qkv")
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + attended.transpose(1, 2).flatten(2) @ p["o"]
    h = F.layer_norm(x, x.shape[-1:], p["g1"], p["c1"])
    h = F.gelu(F.linear(h, p["u"].T, p["ub"]))
    x = x + F.linear(h, p["w"].T, p["wb"])
    return x, F.mse_loss(x.float(), y)


_FUNCTIONS = {"mlp": mlp, "conv": conv, "transformer": transformer}


def run_torch(
    name: str, params: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray, autocast: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The output and the gradients of the loss."""
    leaves = {key: torch.tensor(value, requires_grad=True) for key, value in params.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out, loss = _FUNCTIONS[name](leaves, torch.tensor(x), torch.tensor(y))
    loss.backward()
    return out.detach().float().numpy(), {key: leaf.grad.numpy() for key, leaf in leaves.items()}
