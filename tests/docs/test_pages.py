"""The examples on the pages of docs/ run: each page from top to bottom, its blocks sharing their names."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run(page: Path) -> int:
    """Runs the blocks of a page; returns how many there were.

    A block that starts with ``>>>`` is compared with the output that it shows, any other is a script.
    """
    text = page.read_text()
    scope: dict[str, Any] = {"__name__": page.stem}
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        source, line = block[1], text.count("\n", 0, block.start(1))
        if source.startswith(">>>"):
            examples = doctest.DocTestParser().get_doctest(source, {}, page.name, str(page), line)
            examples.globs = scope  # get_doctest copies what it is given
            report: list[str] = []
            doctest.DocTestRunner(optionflags=FLAGS).run(examples, out=report.append, clear_globs=False)
            if report:
                raise AssertionError("".join(report))
        else:
            # The empty lines let a traceback point to the line of the page.
            exec(compile("\n" * line + source, str(page), "exec"), scope)
    return len(blocks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples(page):
    assert run(page) == page.read_text().count("```python")


def test_no_example_hides_behind_another_name():
    names = {name for page in PAGES for name in re.findall(r"^ *`{3,}(\S*)", page.read_text(), re.MULTILINE)}
    assert "python" in names
    assert names <= {"", "python", "text"} | {
        f"{{{name}}}" for name in ("toctree", "eval-rst", "include", "literalinclude", "figure")
    }


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (">>> 1 + 1\n3\n", AssertionError, r"Expected:\s+3\s+Got:\s+2"),
        (">>> 1 / 0\n", AssertionError, "ZeroDivisionError"),
        ("assert 1 + 1 == 3, 'no'\n", AssertionError, "no"),
        ("import warnings\nwarnings.warn('old')\n", UserWarning, "old"),
    ],
)
def test_a_wrong_example_fails(block, error, message, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n```python\nx = 1\n```\n\n```python\n{block}```\n")
    with pytest.raises(error, match=message):
        run(page)


def test_blocks_share_names_and_tracebacks_point_into_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n```python\nx = 1\n```\n\n```python\n>>> x\n1\n```\n\n```python\nassert not x\n```\n"
    )
    with pytest.raises(AssertionError) as caught:
        run(page)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (page, 13)
