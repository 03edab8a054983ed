"""Who owns the machines: one task for each, requests queued to it; adoption; discovery."""

from hyperfleet.fleet.config import FleetConfig, ImagesLike
from hyperfleet.fleet.fleet import Fleet

__all__ = ["Fleet", "FleetConfig", "ImagesLike"]
