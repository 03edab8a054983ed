"""Who owns the machines: one task for each, requests queued to it; adoption; discovery."""

from hyperfleet.fleet.capacity import Room, room_of
from hyperfleet.fleet.config import FleetConfig, ImagesLike
from hyperfleet.fleet.fleet import Fleet
from hyperfleet.fleet.revival import Limits

__all__ = ["Fleet", "FleetConfig", "ImagesLike", "Limits", "Room", "room_of"]
