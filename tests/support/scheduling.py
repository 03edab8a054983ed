"""Which tests run in one process, where several run beside each other (pytest-xdist)."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

# Folders whose tests share machines that take long to make.
TOGETHER = ("tests/e2e/tap/", "tests/e2e/user/")


class ByFile(LoadFileScheduling):
    """A file at a time to whoever has next to nothing left, in the order that is theirs."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), None) or str(
            super()._split_scope(nodeid)
        )
