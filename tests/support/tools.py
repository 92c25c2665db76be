"""Programs that tests run and that a newcomer's machine may lack."""

import os
import shutil

import pytest


def require(tool: str) -> None:
    """Skips the test without it, and says so. Continuous integration may not go without: there it fails."""
    if shutil.which(tool) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is not installed")
        pytest.skip(f"{tool} is not installed")
