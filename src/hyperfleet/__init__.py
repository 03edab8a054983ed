"""Hyperfleet: microVMs with an address."""

__version__ = "0.1.0"
