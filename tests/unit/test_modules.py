from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from hyperfleet.errors import SetupError
from hyperfleet.images import modules

# As the kernel's own files name them; values are what modinfo's `depends` says.
TREE = {
    "drivers/virtio/virtio.ko": "",
    "drivers/virtio/virtio_ring.ko": "",
    "drivers/virtio/virtio_mmio.ko": "virtio,virtio_ring",
    "drivers/net/virtio_net.ko": "virtio_ring,virtio,net_failover",
    "drivers/net/net_failover.ko": "failover",
    "net/core/failover.ko": "",
    "drivers/block/virtio_blk.ko": "virtio,virtio_ring",
    "drivers/char/virtio_console.ko": "virtio,virtio_ring",
    "drivers/char/hw_random/virtio-rng.ko": "virtio",
    "drivers/gpu/unasked.ko": "",
}


def plant(tree: Path, files: dict[str, str]) -> Path:
    for name, depends in files.items():
        path = tree / "kernel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(elf(depends))
    return tree


def elf(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def test_each_module_comes_after_what_it_depends_on(tmp_path: Path) -> None:
    chosen = [module.name for module in modules.choose(plant(tmp_path, TREE))]
    assert set(chosen) == {Path(name).stem.replace("-", "_") for name in TREE} - {"unasked"}
    for name, depends in TREE.items():
        for other in filter(None, depends.split(",")):
            assert chosen.index(other) < chosen.index(Path(name).stem.replace("-", "_"))


def test_what_is_built_in_is_left_out(tmp_path: Path) -> None:
    plant(tmp_path, {"drivers/net/virtio_net.ko": "virtio,net-failover"})
    built_in = ["virtio", "virtio-mmio", "virtio_blk", "virtio_console", "net_failover"]
    lines = "".join(f"kernel/drivers/{name}.ko\n" for name in built_in)
    (tmp_path / "modules.builtin").write_text(lines)
    assert [module.name for module in modules.choose(tmp_path)] == ["virtio_net"]


def test_packed_modules_are_unpacked(tmp_path: Path) -> None:
    plant(tmp_path, {name: "" for name in TREE if "virtio_mmio" not in name})
    packed = tmp_path / "kernel/drivers/virtio/virtio_mmio.ko.xz"
    packed.write_bytes(lzma.compress(elf("virtio")))
    chosen = {module.name: module.data for module in modules.choose(tmp_path)}
    assert chosen["virtio_mmio"] == elf("virtio")


def test_a_needed_module_that_is_missing_is_named(tmp_path: Path) -> None:
    plant(tmp_path, {name: deps for name, deps in TREE.items() if "virtio_blk" not in name})
    with pytest.raises(SetupError, match="no virtio_blk"):
        modules.choose(tmp_path)
