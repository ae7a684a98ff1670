"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def missing(reason: str) -> None:
    """Skip the test, or fail it in CI, where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (a failure because CI=true)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with recordings and vectors beside the checkout."""
    if not SHARED.is_dir():
        missing(f"recordings and vectors are not at {SHARED}")
    return SHARED
