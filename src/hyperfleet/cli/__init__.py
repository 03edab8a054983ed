"""The command line, on the SDK."""

from hyperfleet import garbage


def main() -> None:
    """Runs a command and exits."""
    with garbage.lasting(tidy=False):
        from hyperfleet.cli.main import main as run  # noqa: PLC0415

    run()


__all__ = ["main"]
