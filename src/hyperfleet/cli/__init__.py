"""The command line, on the SDK."""

import sys

from hyperfleet import garbage


def main() -> None:
    """Runs a command and exits."""
    if sys.argv[1:] == ["serve"]:
        from hyperfleet.cli.serving import serve  # noqa: PLC0415

        sys.exit(serve())
    # httpx would load its own command line, and with it Rich, Click and Pygments; it goes without
    # where that can't be imported.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    with garbage.lasting(tidy=False):
        from hyperfleet.cli.main import main as run  # noqa: PLC0415

    run()


__all__ = ["main"]
