"""docs/conventions.md is true: its code blocks run, in order, in one namespace, and all their asserts hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "conventions.md"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[int, str]]:
    """(first line, code) of every block."""
    text = PAGE.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)) + 1, found.group(1)) for found in FENCE.finditer(text)]


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    return {"__name__": "conventions"}


@pytest.mark.parametrize("line,code", blocks(), ids=[f"line{line}" for line, _ in blocks()])
def test_block(line, code, namespace):
    # padded with empty lines so that a traceback points at the page
    exec(compile("\n" * (line - 1) + code, str(PAGE), "exec"), namespace)


def test_every_section_proves_something():
    text = PAGE.read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        assert any("assert" in code for code in FENCE.findall(section)), section.splitlines()[0]
