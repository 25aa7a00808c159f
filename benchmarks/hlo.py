"""What a compiled program does with arrays of one shape."""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["operations_on"]

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?[\w.\-]+ \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) (?P<op>[\w\-]+)\((?P<rest>.*)"
)


def operations_on(text: str, shape: tuple[int, ...]) -> Counter[str]:
    """Counts the operations that have an array of a shape among their operands or results.

    The bodies of fusions, loops and calls are read like the program itself, so that a ``fusion`` in the
    answer is accounted for by what is inside of it.

    Args:
      text: ``compiled.as_text()``.
      shape: of the arrays in question.

    Returns:
      Name of the operation (``gather``, ``copy``, ...) -> how many.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> program = jax.jit(lambda x: x.at[3].add(1.0), donate_argnums=0)
      >>> text = program.lower(jnp.zeros((100, 7))).compile().as_text()
      >>> "add" in operations_on(text, (100, 7))
      False
    """
    wanted = f"[{','.join(map(str, shape))}]"
    counts: Counter[str] = Counter()
    holders: set[str] = set()
    for line in text.splitlines():
        if _COMPUTATION.match(line):
            holders = set()
        elif found := _INSTRUCTION.match(line):
            operands = set(re.findall(r"%([\w.\-]+)", found["rest"].split("), ")[0]))
            if wanted in found["type"]:
                holders.add(found["name"])
            if wanted in found["type"] or operands & holders:
                counts[found["op"]] += 1
    return counts
