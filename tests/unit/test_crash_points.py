"""Each crash window that a comment in the operator names is one that the crash tests die in."""

import importlib
import re
from pathlib import Path

import pytest

from tests.crash.points import POINTS, Point

OPERATOR = Path(__file__).parents[2] / "operator" / "scannerjob"
# The workers' windows are tried where workers are killed.
_ELSEWHERE = "worker"
_WINDOW = re.compile(r"\ba crash (?=here|in here|before|after|between|while|within)", re.IGNORECASE)


def _prose(file: Path) -> str:
    """Comments and docstrings as running text."""
    return re.sub(r"\s+(# )?", " ", file.read_text())


def _windows() -> list[str]:
    files = [file for file in OPERATOR.rglob("*.py") if _ELSEWHERE not in file.parts]
    texts = map(_prose, files)
    return [text[found.start() :] for text in texts for found in _WINDOW.finditer(text)]


NAMED = [point.comment for point in POINTS.values() if point.comment]


def test_each_window_that_a_comment_names_has_a_point() -> None:
    assert _windows()
    missed = [window[:80] for window in _windows() if not window.startswith(tuple(NAMED))]
    assert not missed


@pytest.mark.parametrize("comment", NAMED)
def test_each_comment_that_a_point_names_is_there(comment: str) -> None:
    assert any(window.startswith(comment) for window in _windows())


@pytest.mark.parametrize("point", POINTS.values(), ids=lambda point: point.name)
def test_each_point_is_at_a_function_that_is_there(point: Point) -> None:
    module, _, path = point.call.partition(":")
    found = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert callable(found)
