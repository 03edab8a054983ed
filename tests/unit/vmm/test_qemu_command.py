"""QEMU's command line."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from hyperfleet.machine import MachineNetwork
from hyperfleet.network.interface import Card
from hyperfleet.vmm import qemu_command
from hyperfleet.vmm.driver import LaunchSpec
from hyperfleet.vmm.qemu_command import Sockets

LAUNCH = LaunchSpec(
    id="abc123def456",
    name="web",
    directory=Path("/home/m,1"),
    vcpu_count=2,
    mem_size_mib=256,
    kernel=Path("/k,1/vmlinux"),
    initramfs=Path("/i"),
    kernel_args=None,
    base_disk=Path("/d"),
    network=MachineNetwork(mode="user"),
)


def command(
    launch: LaunchSpec = LAUNCH, *, kvm: bool = False, tsc_khz: int | None = 2300000
) -> list[str]:
    return qemu_command.command(
        launch,
        qemu="qemu",
        kvm=kvm,
        tsc_khz=tsc_khz,
        sockets=Sockets(qmp=7, agent=8),
        cards=[Card(id="n0", backend="user,id=n0", mac="52:00:00:00:00:01", mtu=9000)],
        disk=qemu_command.own_disk(opened=False),
    )


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_what_is_asked_for_is_there() -> None:
    words = command()
    assert value(words, "-m") == "256M"
    assert value(words, "-smp") == "2"
    assert value(words, "-kernel") == "/k,1/vmlinux"
    assert value(words, "-name") == "hyperfleet-abc123def456"
    assert value(words, "-netdev") == "user,id=n0"
    assert "virtio-net-device,netdev=n0,mac=52:00:00:00:00:01,host_mtu=9000" in words
    assert {"-no-reboot", "-nodefaults", "-no-user-config"} <= set(words)
    assert "spawn=deny" in value(words, "-sandbox")
    assert json.loads(value(words, "-blockdev"))["driver"] == "qcow2"


def test_the_guest_is_told_the_rate_of_its_clock_under_tcg_only() -> None:
    assert "tsc_early_khz=2300000" in value(command(), "-append")
    assert value(command(), "-accel").startswith("tcg,")
    assert "tsc_early_khz" not in value(command(kvm=True), "-append")
    assert value(command(kvm=True), "-accel") == "kvm"


def test_a_guest_that_must_calibrate_its_clock_has_the_timer_for_it() -> None:
    assert ",pit=off," in value(command(), "-M")
    assert ",pit=on," in value(command(tsc_khz=None), "-M")
    assert ",pit=on," in value(command(kvm=True), "-M")


@pytest.mark.parametrize("asked", ["console=ttyS0 quiet", ""])
def test_a_users_kernel_arguments_replace_the_defaults(asked: str) -> None:
    words = value(command(msgspec.structs.replace(LAUNCH, kernel_args=asked)), "-append")
    assert words == f"{asked} tsc_early_khz=2300000"


def test_a_users_own_clock_rate_stays() -> None:
    launch = msgspec.structs.replace(LAUNCH, kernel_args="tsc_early_khz=1")
    assert value(command(launch), "-append") == "tsc_early_khz=1"


def test_no_path_is_part_of_an_option_with_commas() -> None:
    for word in command():
        assert "/home/m,1" not in word


@pytest.mark.parametrize(("mem_mib", "translations"), [(64, 48), (512, 128), (8192, 256)])
def test_what_a_process_may_hold_has_room_for_all_that_is_translated(
    mem_mib: int, translations: int
) -> None:
    line = command(msgspec.structs.replace(LAUNCH, mem_size_mib=mem_mib), kvm=False)
    assert f"tcg,thread=multi,tb-size={translations}" in line
    assert qemu_command.process_mib(mem_mib, kvm=False) == mem_mib + translations
    assert qemu_command.process_mib(mem_mib, kvm=True) == mem_mib
