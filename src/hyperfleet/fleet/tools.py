"""What all owners of a fleet share."""

from __future__ import annotations

import msgspec

from hyperfleet.fleet.admission import Admission
from hyperfleet.fleet.config import FleetConfig, ImagesLike
from hyperfleet.fleet.consoles import Consoles
from hyperfleet.fleet.disk_room import DiskRoom
from hyperfleet.fleet.disks import Disks
from hyperfleet.fleet.layout import Layout
from hyperfleet.fleet.looker import Slots
from hyperfleet.fleet.observer import Observer
from hyperfleet.fleet.snapshots import Snapshots
from hyperfleet.fleet.templating import Templating
from hyperfleet.network.interface import Networks
from hyperfleet.proxy.interface import Traffic
from hyperfleet.store.interface import MachineStore
from hyperfleet.vmm.driver import Driver


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """One set for a fleet."""

    driver: Driver
    networks: Networks
    store: MachineStore
    images: ImagesLike
    config: FleetConfig
    layout: Layout
    admission: Admission
    slots: Slots
    consoles: Consoles
    observer: Observer
    traffic: Traffic
    templating: Templating
    snapshots: Snapshots
    disks: Disks
    disk_room: DiskRoom
