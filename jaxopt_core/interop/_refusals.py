"""What the names are that a checkpoint may not use, where more can be said than that."""

from __future__ import annotations

from jaxopt_core.interop._dtypes import FOREIGN
from jaxopt_core.interop.errors import RESAVE, Fault


def explain(name: str) -> tuple[str, str] | None:
    """What a name that is not in the table is, and what to do, where more can be said than that."""
    plain = name.removeprefix("torch.")
    if plain in FOREIGN:
        return f"numpy has no such dtype as {name}", f"There, {FOREIGN[plain]}"
    if name.startswith(_CODE):
        return "it runs code", (
            "Checkpoints have no use for it: the file is made to attack, or broken. Do not load it with "
            "anything that runs pickles, torch.load(weights_only=False) least of all"
        )
    for prefix, what, remedy in _REFUSALS:
        if name.startswith(prefix):
            return what, remedy
    return None


# What attackers call, and checkpoints never hold.
_CODE = (
    *("posix.", "nt.", "os.", "subprocess.", "sys.", "shutil.", "socket.", "pty."),
    *("runpy.", "importlib.", "ctypes."),
    *(f"builtins.{name}" for name in ("eval", "exec", "compile", "open", "getattr", "setattr", "__import__")),
)
_REFUSALS = [
    ("torch._utils._rebuild_sparse", "it makes a sparse tensor", "Save tensor.to_dense() in PyTorch"),
    ("torch.serialization._get_layout", "it makes a sparse tensor", "Save tensor.to_dense() in PyTorch"),
    ("torch._utils._rebuild_qtensor", "it makes a quantized tensor", "Save tensor.dequantize() in PyTorch"),
    *(
        (f"torch.{kind}Storage", "it is quantized memory", "Save tensor.dequantize() in PyTorch")
        for kind in ("QInt8", "QInt32", "QUInt8", "QUInt4x2", "QUInt2x4")
    ),
    ("torch._utils._rebuild_meta_tensor", "it makes a tensor on the meta device, without numbers", RESAVE),
    (
        "torch._utils._rebuild_nested",
        "it makes a nested tensor",
        "Save tensor.to_padded_tensor(0.0) or tensor.unbind() in PyTorch",
    ),
    (
        "torch.distributed",
        "it belongs to a tensor that is split over processes",
        "Gather the whole state first, with torch.distributed.checkpoint.state_dict.get_state_dict and "
        "StateDictOptions(full_state_dict=True)",
    ),
    (
        "torch.nn.modules",
        "the file holds a whole module, which is code",
        "If you trust it, in PyTorch: torch.save(torch.load(path, weights_only=False).state_dict(), path)",
    ),
    (
        "torch.optim",
        "the file holds a whole optimizer or scheduler, which is code",
        "In PyTorch, save its state_dict() instead",
    ),
]


def malformed(name: str) -> Fault:
    """The Fault for a known name with arguments that no file of torch.save's has."""
    return Fault(f"its pickle calls {name} with arguments that PyTorch never gives it")
