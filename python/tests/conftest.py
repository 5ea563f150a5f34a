"""What the tests share: the model of handwritten digits that the repository trains."""

from pathlib import Path

import pytest

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


@pytest.fixture
def digits() -> Path:
    return FIXTURES / "digits" / "model.onnx"


@pytest.fixture
def fixtures() -> Path:
    return FIXTURES
