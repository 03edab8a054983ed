"""All behind the API, put together: driver, record, images, fleet, data plane."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from ipaddress import IPv4Network
from pathlib import Path

from hyperfleet import binaries
from hyperfleet.api.interface import Templates
from hyperfleet.errors import SettingsError
from hyperfleet.fleet import Fleet, FleetConfig, ImagesLike, Limits, room_of
from hyperfleet.images.locate import Images
from hyperfleet.lifecycle import ALIVE
from hyperfleet.machine import Machine
from hyperfleet.metrics.instruments import Instruments
from hyperfleet.metrics.scrape import Metrics
from hyperfleet.network.gate import Gates
from hyperfleet.network.interface import Networks
from hyperfleet.network.tap import TapConfig, TapNetwork
from hyperfleet.network.user import UserNetwork
from hyperfleet.proxy.data_plane import DataPlane
from hyperfleet.proxy.interface import Answer
from hyperfleet.proxy.process import DataPlaneConfig
from hyperfleet.settings import Settings
from hyperfleet.store.database import Database
from hyperfleet.store.sql import SqlAddressStore, SqlMachineStore
from hyperfleet.vmm import kvm
from hyperfleet.vmm.cgroup import Cgroups, Shares
from hyperfleet.vmm.cgroup_tree import disk_of
from hyperfleet.vmm.driver import Driver
from hyperfleet.vmm.fake import FakeDriver
from hyperfleet.vmm.qemu import QemuDriver
from hyperfleet.vmm.templates import Templates as TemplateCache

# Another one after each boot of the host (random(4)).
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# Settings that the data plane takes as they are: PROXY_MAX_HEAD_BYTES is --max-head-bytes.
_HANDED_ON = (
    "access_log_sample",
    "max_head_bytes",
    "max_head_fields",
    "max_target_bytes",
    "max_body_bytes",
    "max_connections",
    "max_address_connections",
    "max_held_bytes",
    "max_machine_connections",
    "max_machine_requests",
    "head_timeout_ms",
    "idle_timeout_ms",
    "connect_timeout_ms",
    "response_timeout_ms",
    "body_timeout_ms",
    "tunnel_timeout_ms",
    "drain_timeout_ms",
    "retire_timeout_ms",
)


class Backend:
    """The fleet and its data plane. Opens nothing by itself."""

    def __init__(self, settings: Settings, database: Database) -> None:
        networks = _networks(settings, database)
        driver, self.driver = _driver(settings, networks)
        self.templates: Templates = driver
        self._warm_up = driver.warm_up if isinstance(driver, QemuDriver) else None
        self._data_plane = DataPlane(data_plane_config(settings), self._probe)
        instruments = Instruments(driver=driver.name, proxy_pid=lambda: self._data_plane.pid)
        self.machines = Fleet(
            driver=driver,
            networks=networks,
            store=SqlMachineStore(database),
            routes=self._data_plane,
            images=_images(settings),
            config=_fleet_config(settings),
            traffic=self._data_plane,
            observer=instruments,
        )
        self.metrics = Metrics(
            instruments,
            machines=self.machines.machines,
            ask=lambda machines: self._data_plane.report(machines=machines),
            per_machine=settings.hyperfleet_metrics_per_machine,
        )

    async def open(self) -> None:
        """Adopts machines, then the data plane (or starts one), which gets the routes whole.

        Raises:
            SettingsError: the proxy's port is taken, or the data plane refuses its settings.
        """
        await self._data_plane.check()
        if self._warm_up is not None:
            asyncio.get_running_loop().run_in_executor(None, self._warm_up)
        await self.machines.open()
        await self._data_plane.open()

    def everything(self) -> list[Machine]:
        """Every machine."""
        return self.machines.machines()

    async def close(self) -> None:
        """Lets machines go; the data plane serves on while there are any that run."""
        serves_on = any(machine.status in ALIVE for machine in self.machines.machines())
        await self.machines.close()
        await self._data_plane.close(keep_running=serves_on)

    async def _probe(self, machine_id: str, port: int) -> Answer | None:
        return await self.machines.probe(machine_id, port)


class _AnyImages:
    """For the fake driver, which boots from nothing: any path will do."""

    def kernel(self, path: str) -> Path:
        return Path(path)

    def root_disk(self, path: str) -> Path:
        return Path(path)

    def initramfs(self) -> Path:
        return Path("none")


def _images(settings: Settings) -> ImagesLike:
    if settings.hyperfleet_vmm == "fake":
        return _AnyImages()
    return Images(settings.hyperfleet_home, settings.hyperfleet_image_dirs)


def _networks(settings: Settings, database: Database) -> Networks:
    """All kinds: a machine stays with its own, whatever new ones get.

    Raises:
        SettingsError: the kind that is asked for can't work here.
    """
    if settings.disable_auth and settings.port in settings.hyperfleet_network_host_ports:
        raise SettingsError(
            f"HYPERFLEET_NETWORK_HOST_PORTS lets machines reach the API (PORT={settings.port}), and"
            " DISABLE_AUTH=true lets in whoever does: give up one of them"
        )
    user = UserNetwork(
        None
        if settings.hyperfleet_network_restrict
        else Gates(binaries.gate, host_ports=settings.hyperfleet_network_host_ports)
    )
    if settings.hyperfleet_vmm == "fake":
        if settings.hyperfleet_network == "tap":
            raise SettingsError(
                "HYPERFLEET_NETWORK=tap: the fake driver attaches nothing; leave it at auto"
            )
        return Networks(user)
    config = TapConfig(
        home=settings.hyperfleet_home,
        subnet=IPv4Network(settings.hyperfleet_subnet),
        restrict=settings.hyperfleet_network_restrict,
        host_ports=settings.hyperfleet_network_host_ports,
        dns=settings.hyperfleet_dns,
        users=_user_ids(settings.proxy_user),
    )
    tap = TapNetwork(config, SqlAddressStore(database))
    return Networks(tap, user) if settings.hyperfleet_network == "tap" else Networks(user, tap)


def _user_ids(user: str) -> tuple[int, ...]:
    """Whom the data plane becomes; whether there is such a user, it says itself."""
    if user.isdigit():
        return (int(user),)
    try:
        return (pwd.getpwnam(user).pw_uid,)
    except KeyError:
        return ()


def _driver(settings: Settings, networks: Networks) -> tuple[Driver, str]:
    """The driver and what it is called before people.

    Raises:
        SettingsError: the driver that is asked for can't work here.
    """
    if settings.hyperfleet_vmm == "fake":
        fake = FakeDriver(templates=settings.hyperfleet_templates)
        return fake, "fake (no real machines)"
    if shutil.which("qemu-system-x86_64") is None:
        raise SettingsError(
            f"HYPERFLEET_VMM={settings.hyperfleet_vmm}: QEMU is not installed;"
            " `apt-get install qemu-system-x86 qemu-utils` does it, `hyperfleet doctor` says more"
        )
    verdict = kvm.probe()
    cgroups = _cgroups(settings)
    templates = TemplateCache(
        settings.hyperfleet_home,
        most=settings.hyperfleet_templates,
        confine=binaries.confine,
        cgroups=cgroups,
        limit=settings.hyperfleet_boot_deadline_ms / 1000,
    )
    qemu = QemuDriver(
        networks=networks,
        kvm=verdict.usable,
        confine=binaries.confine,
        templates=templates,
        cgroups=cgroups,
    )
    return qemu, "qemu (KVM)" if verdict.usable else f"qemu (TCG, no KVM: {verdict.reason})"


def _cgroups(settings: Settings) -> Cgroups:
    """What machines' processes are held by; whether that can be had is seen when it is opened."""
    io = settings.hyperfleet_cgroup_io_max
    shares = Shares(
        memory_mib=settings.hyperfleet_cgroup_memory_mib,
        cpu_percent=settings.hyperfleet_cgroup_cpu_percent,
        io=io or "",
        disk=disk_of(settings.hyperfleet_home) if io else None,
    )
    return Cgroups(
        settings.hyperfleet_home, wanted=settings.hyperfleet_cgroups != "off", shares=shares
    )


def _fleet_config(settings: Settings) -> FleetConfig:
    host_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    room = room_of(
        host_mib=host_mib,
        host_cpus=os.cpu_count() or 1,
        reserve_mib=settings.hyperfleet_memory_reserve_mib,
        mem_percent=settings.hyperfleet_memory_overcommit_percent,
        cpu_percent=settings.hyperfleet_cpu_overcommit_percent,
    )
    return FleetConfig(
        home=settings.hyperfleet_home,
        poll_interval=settings.proxy_exposed_port_poll_interval_ms / 1000,
        boot_deadline=settings.hyperfleet_boot_deadline_ms / 1000,
        stop_grace=settings.hyperfleet_stop_grace_ms / 1000,
        boots_at_once=settings.hyperfleet_boots_at_once,
        boot_queue=settings.hyperfleet_boot_queue,
        room=room,
        disk_reserve_mib=settings.hyperfleet_disk_reserve_mib,
        # What could never be started is refused when it is made.
        largest_mem_size_mib=min(host_mib, room.mem_mib),
        revival=Limits(
            first_wait=settings.hyperfleet_restart_wait_ms / 1000,
            longest_wait=settings.hyperfleet_restart_longest_wait_ms / 1000,
            calm=settings.hyperfleet_restart_calm_ms / 1000,
            tries=settings.hyperfleet_restart_tries,
        ),
        host_boot=_BOOT_ID.read_text(encoding="ascii").strip(),
    )


def _access_log(path: Path | None) -> str:
    """As the data plane takes it, which has another working directory than ours."""
    if path is None:
        return ""
    return "-" if path == Path("-") else str(path.absolute())


def data_plane_config(settings: Settings) -> DataPlaneConfig:
    """What the data plane is started with; all that its settings say."""
    arguments = [
        ("prefix", settings.proxy_prefix),
        ("host-suffix", settings.proxy_host_suffix or ""),
        ("trusted", ",".join(settings.proxy_trusted_proxies)),
        ("user", settings.proxy_user),
        ("seccomp", str(settings.proxy_seccomp).lower()),
        ("server-timing", str(settings.proxy_server_timing).lower()),
        ("access-log", _access_log(settings.proxy_access_log)),
    ]
    if settings.proxy_workers:
        arguments.append(("workers", str(settings.proxy_workers)))
    arguments += [
        (name.replace("_", "-"), str(getattr(settings, f"proxy_{name}"))) for name in _HANDED_ON
    ]
    home = settings.hyperfleet_home.absolute()
    return DataPlaneConfig(
        binary=binaries.proxy(),
        socket=home / "proxy.sock",
        log=home / "proxy.log",
        bind=settings.proxy_bind,
        port=settings.proxy_port,
        arguments=tuple(arguments),
    )
