"""What a test needs of the host."""

from __future__ import annotations

import os
import shutil

import pytest


class Need:
    """Says what a test needs: without it the test is skipped on a laptop and fails in CI."""

    def __call__(self, program: str) -> str:
        """The path of a program that must be on the PATH (or where only root's PATH looks)."""
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if path is None:
            self.that(False, f"{program} is not installed: run scripts/bootstrap system")
        assert path is not None
        return path

    def that(self, condition: bool, reason: str) -> None:
        """Goes on only where `condition` holds; `reason` says what is missing and what makes it."""
        if condition:
            return
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
