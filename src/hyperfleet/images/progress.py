"""Tells people what set-up does: a line for each artefact, and a sign of life while one is made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

_WIDTH = 24


class Progress:
    """Lines on a console; on a terminal a spinner while something is made."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def making(self, name: str, about: str) -> Iterator[None]:
        """While `name` is made, which takes `about` so long; its time when it is done."""
        began = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(f"{escape(name)}  making it ({about})"):
                yield
        else:
            self._line(name, f"making it ({about})", "")
            yield
        self._line(name, f"made in {time.monotonic() - began:.1f} s", "green")

    def there(self, name: str, what: str) -> None:
        """It was there already."""
        self._line(name, what, "dim")

    def missing(self, name: str, why: str) -> None:
        """It can't be had here, and nobody insisted."""
        self._line(name, f"left out: {why}", "yellow")

    def failed(self, name: str, why: str) -> None:
        """It was asked for and could not be made."""
        self._line(name, why, "bold red")

    def note(self, name: str, what: str) -> None:
        """Something worth knowing."""
        self._line(name, what, "")

    def _line(self, name: str, what: str, style: str) -> None:
        text = f"{escape(name):<{_WIDTH}} {escape(what)}"
        self._console.print(text, style=style, highlight=False, soft_wrap=True)
