"""Routes are a function of machines: numbered steps, snapshots in parts that fit a frame."""

from __future__ import annotations

from datetime import UTC, datetime

from hyperfleet.lifecycle import Status
from hyperfleet.machine import ExposedPort, Machine, MachineNetwork, MachineSpec, PortOptions
from hyperfleet.proxy.routes import Table, parts, route
from hyperfleet.wire import control, length

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_machine(
    machine_id: str = "aaaaaaaaaaaa",
    *,
    status: Status = Status.RUNNING,
    ports: tuple[ExposedPort, ...] = (),
    options: tuple[PortOptions, ...] = (),
) -> Machine:
    spec = MachineSpec(
        name=f"m-{machine_id}",
        vcpu_count=1,
        mem_size_mib=64,
        kernel_image_path="k",
        rootfs_path="r",
        port_options=options,
    )
    return Machine(
        id=machine_id,
        spec=spec,
        status=status,
        vmm="fake",
        network=MachineNetwork(mode="user"),
        ports=ports,
        lifecycle=3,
        created_at=NOW,
        updated_at=NOW,
    )


def test_a_route_tells_what_is_needed_and_no_more() -> None:
    port = ExposedPort(port=80, listening=True, since=NOW, address="::", upstream="127.0.0.1:9")
    assert route(a_machine(ports=(port,))) == control.Machine(
        id="aaaaaaaaaaaa",
        name="m-aaaaaaaaaaaa",
        status="running",
        lifecycle=3,
        ports=(control.Port(port=80, upstream="127.0.0.1:9", listening=True),),
    )


def test_a_route_has_the_options_of_its_port_and_other_options_are_a_step() -> None:
    ports = tuple(ExposedPort(port=port, upstream="127.0.0.1:9") for port in (80, 5173))
    options = PortOptions(port=5173, host="localhost:5173", strip_prefix=False)
    plain, vite = route(a_machine(ports=ports, options=(options,))).ports
    assert (plain.host, plain.strip_prefix) == (None, True)
    assert (vite.host, vite.strip_prefix) == ("localhost:5173", False)
    table = Table()
    table.upsert(a_machine(ports=ports))
    step = table.upsert(a_machine(ports=ports, options=(options,)))
    assert step is not None
    assert step.upsert[0].ports == (plain, vite)
    assert table.upsert(a_machine(ports=ports, options=(options,))) is None


def test_each_difference_is_one_step_and_no_difference_is_none() -> None:
    table = Table()
    first = table.upsert(a_machine())
    assert first is not None
    assert (first.number, first.remove) == (1, ())
    assert table.upsert(a_machine()) is None
    stopped = table.upsert(a_machine(status=Status.STOPPING))
    assert stopped is not None
    assert stopped.number == 2
    assert stopped.upsert[0].status == "stopping"
    assert table.remove("unknown") is None
    gone = table.remove("aaaaaaaaaaaa")
    assert gone is not None
    assert (gone.number, gone.upsert, gone.remove) == (3, (), ("aaaaaaaaaaaa",))


def test_a_snapshot_has_the_number_of_the_last_step_even_if_more_follow() -> None:
    table = Table()
    table.upsert(a_machine("a" * 12))
    table.upsert(a_machine("b" * 12))
    messages = table.snapshot()
    table.remove("a" * 12)
    assert messages[0] == control.SnapshotBegin(number=2)
    assert messages[-1] == control.SnapshotEnd(number=2)
    told = [
        m.id for part in messages if isinstance(part, control.SnapshotPart) for m in part.machines
    ]
    assert told == ["a" * 12, "b" * 12]


def test_parts_keep_the_order_and_the_bound() -> None:
    machines = [
        route(
            a_machine(
                f"{n:012d}",
                ports=tuple(ExposedPort(port=p, upstream="127.0.0.1:65535") for p in range(1, 40)),
            )
        )
        for n in range(100)
    ]
    bound = 10_000
    divided = list(parts(machines, bound))
    assert [m for part in divided for m in part] == machines
    assert len(divided) > 1
    for part in divided:
        assert sum(len(control.encode_machine(machine)) for machine in part) <= bound


def test_every_message_of_a_large_snapshot_fits_a_frame() -> None:
    table = Table()
    ports = tuple(ExposedPort(port=p, upstream="127.0.0.1:65535") for p in range(1, 200))
    for n in range(300):
        table.upsert(a_machine(f"{n:012d}", ports=ports))
    messages = table.snapshot()
    assert len(messages) > 3
    for message in messages:
        assert len(control.encode(message)) <= length.MAX_PAYLOAD
