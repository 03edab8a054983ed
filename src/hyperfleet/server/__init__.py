"""The composition root: here, and nowhere else, the parts are put together and run."""

from hyperfleet.server.serve import Backend, serve

__all__ = ["Backend", "serve"]
