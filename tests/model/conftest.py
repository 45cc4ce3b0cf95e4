"""What all tests of the model share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What fails here, fails by intention."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
