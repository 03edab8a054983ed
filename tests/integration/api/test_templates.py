"""The endpoints of templates."""

from __future__ import annotations

from pathlib import Path

from hyperfleet.machine import MachineNetwork
from hyperfleet.vmm.driver import LaunchSpec
from support.bench import make_template

from .conftest import Api, error

FIELDS = {
    "id", "kernel_image_path", "kernel_args", "vcpu_count", "mem_size_mib", "size_bytes",
    "made_in_ms", "made_at", "used_at",
}  # fmt: skip


def launch(mib: int) -> LaunchSpec:
    return LaunchSpec(
        id=f"m{mib}",
        name="web",
        directory=Path("none"),
        vcpu_count=2,
        mem_size_mib=mib,
        kernel=Path("/k/vmlinux"),
        initramfs=Path("/i"),
        kernel_args="quiet",
        base_disk=Path("/d"),
        network=MachineNetwork(mode="user"),
    )


async def test_templates_are_listed_and_removed(api: Api) -> None:
    assert (await api.client.get("/templates")).json() == {"templates": []}
    for mib in (64, 128):
        await make_template(api.templates, launch(mib))
    listed = (await api.client.get("/templates")).json()["templates"]
    assert [one["mem_size_mib"] for one in listed] == [128, 64]
    assert set(listed[0]) == FIELDS
    assert (listed[0]["kernel_image_path"], listed[0]["kernel_args"]) == ("/k/vmlinux", "quiet")
    assert listed[0]["made_at"].endswith("Z")
    path = f"/templates/{listed[0]['id']}"
    assert (await api.client.delete(path)).status_code == 204
    assert (await api.client.get("/templates")).json()["templates"] == listed[1:]
    again = await api.client.delete(path)
    assert error(again) == (404, "NOT_FOUND", f"there is no template '{listed[0]['id']}'")


async def test_none_of_that_name(api: Api) -> None:
    for name in ("x", "..", "%2e%2e%2fmachines", "a" * 3000):
        answer = await api.client.delete(f"/templates/{name}")
        assert answer.status_code in (404, 405)
