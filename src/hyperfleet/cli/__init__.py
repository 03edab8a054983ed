"""The command line, on the SDK."""

from hyperfleet.cli.main import main

__all__ = ["main"]
