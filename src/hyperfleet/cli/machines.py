"""Commands on machines: create, list, show, change, start, stop, restart, rm, wait, ports."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from hyperfleet.cli.arguments import (
    AsJson,
    Cpus,
    DiskOption,
    DiskSizeOption,
    EgressOption,
    EnvOption,
    KeepPrefixOption,
    LabelOption,
    Machine,
    Machines,
    Memory,
    PortHostOption,
    PortOption,
    RestartOption,
    RootfsOption,
    SleepOption,
    disks,
    egress,
    mebibytes,
    port_options,
    seconds,
    variables,
)
from hyperfleet.cli.complaints import complain
from hyperfleet.cli.connect import connect, every_machine
from hyperfleet.cli.output import (
    moment,
    say,
    say_json,
    say_table,
    span,
    standing,
    working,
)
from hyperfleet.client import ApiError, Client, Port, PortOptions, to_json
from hyperfleet.client import Machine as MachineValue

T = TypeVar("T")

# Requests at once, of those that wait for machines.
_AT_ONCE = 16


def create(
    name: Annotated[str, typer.Argument(help="A DNS label: a-z, 0-9 and inner dashes.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(help="What it runs from each start on: a program, arguments; after --."),
    ] = None,
    *,
    cpus: Cpus = 1,
    memory: Memory = "512",
    port: PortOption = None,
    port_host: PortHostOption = None,
    keep_prefix: KeepPrefixOption = None,
    env: EnvOption = None,
    label: LabelOption = None,
    rootfs: RootfsOption = None,
    kernel: Annotated[str | None, typer.Option(help="Its kernel; else the default.")] = None,
    kernel_args: Annotated[str | None, typer.Option(help="Arguments of the kernel.")] = None,
    restart: RestartOption = None,
    autostart: Annotated[
        bool, typer.Option("--autostart", help="It comes up with the server if it ran before.")
    ] = False,
    egress_rules: EgressOption = None,
    sleep_after: SleepOption = None,
    disk_size: DiskSizeOption = None,
    disk: DiskOption = None,
    cwd: Annotated[
        str | None, typer.Option("--cwd", "--workdir", "-w", help="A folder, where COMMAND runs.")
    ] = None,
    start_it: Annotated[bool, typer.Option("--start", help="And start it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a machine; `--start` starts it."""
    with connect() as client:
        machine = client.create_machine(
            name=name,
            vcpu_count=cpus,
            mem_size_mib=mebibytes(memory),
            kernel_image_path=kernel,
            kernel_args=kernel_args,
            rootfs_path=rootfs,
            exposed_ports=port or (),
            env=variables(env),
            labels=variables(label, "--label"),
            restart=restart or "never",
            autostart=autostart,
            egress=egress(egress_rules) or "all",
            sleep_after_s=seconds(sleep_after or "0"),
            cmd=command or (),
            cwd=cwd,
            disk_size_mib=None if disk_size is None else mebibytes(disk_size, "--disk-size"),
            disks=disks(disk),
            port_options=port_options(port_host, keep_prefix),
        )
        if start_it:
            with working(f"{name} starts"):
                machine = client.start_machine(machine.id)
    if as_json:
        say_json(to_json(machine))
    elif start_it:
        _say_running(machine)
    else:
        say(f"{machine.name} is made; start it with `hyperfleet start {machine.name}`.")


def list_machines(
    *,
    status: Annotated[str | None, typer.Option(help="Only those: running, stopped, ...")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="KEY or KEY=VALUE; all must fit.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List machines, oldest first."""
    with connect() as client:
        machines = every_machine(client, status=status, labels=label or ())
    if as_json:
        say_json({"machines": to_json(machines)})
        return
    now = datetime.now(UTC)
    say_table(
        ("NAME", "ID", "STATUS", "CPUS", "MEMORY", "PORTS", "SINCE"),
        [
            (
                machine.name,
                machine.id,
                machine.status,
                str(machine.vcpu_count),
                f"{machine.mem_size_mib} MiB",
                " ".join(_short(port) for port in machine.ports) or "-",
                span(now - _since(machine)),
            )
            for machine in machines
        ],
    )


def show(machine: Machine, as_json: AsJson = False) -> None:
    """Show a machine as it stands."""
    with connect() as client:
        found = client.get_machine(machine)
    if as_json:
        say_json(to_json(found))
        return
    rows = [
        ("name", found.name),
        ("id", found.id),
        ("status", found.status),
        ("why", found.error_message),
        ("stands still", found.stalled),
        ("guest's fault", found.guest_fault),
        ("size", f"{found.vcpu_count} CPUs, {found.mem_size_mib} MiB"),
        ("disk", _disk(found)),
        *((f"disk {one.disk}", f"at {one.path}") for one in found.disks),
        ("kernel", f"{found.kernel_image_path} {found.kernel_args or ''}".rstrip()),
        ("driver", found.vmm),
        ("network", _network(found)),
        ("egress", found.egress if isinstance(found.egress, str) else _rules(found)),
        ("labels", " ".join(f"{key}={value}" for key, value in found.labels.items())),
        ("restart", f"{found.restart}{', autostart' if found.autostart else ''}"),
        ("command", _command(found)),
        ("sleeps", f"after {found.sleep_after_s} s without use" if found.sleep_after_s else None),
        ("restarts", str(found.restarts) if found.restarts else None),
        ("starts at", moment(found.next_start_at) if found.next_start_at else None),
        ("made", moment(found.created_at)),
        ("started", _started(found)),
        *((f"port {port.port}", _long(port)) for port in found.ports),
        *((f"port {port}", _options(one)) for port, one in found.port_options.items()),
    ]
    say_table(("", ""), [(name, value) for name, value in rows if value], headed=False)


def change(
    machine: Machine,
    *,
    port: PortOption = None,
    no_ports: Annotated[bool, typer.Option("--no-ports", help="Expose none.")] = False,
    port_host: PortHostOption = None,
    keep_prefix: KeepPrefixOption = None,
    no_port_options: Annotated[
        bool, typer.Option("--no-port-options", help="No --port-host and no --keep-prefix.")
    ] = False,
    label: LabelOption = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Bear none.")] = False,
    restart: RestartOption = None,
    autostart: Annotated[
        bool | None, typer.Option("--autostart/--no-autostart", help="Whether with the server.")
    ] = None,
    egress_rules: EgressOption = None,
    sleep_after: SleepOption = None,
    disk: DiskOption = None,
    no_disks: Annotated[bool, typer.Option("--no-disks", help="Have no data disks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change a machine, running or not: each option gives the whole new value.

    `--port-host` and `--keep-prefix` are one value.
    """
    ports = [] if no_ports else port
    labels = {} if no_labels else variables(label, "--label") if label else None
    options = {} if no_port_options else port_options(port_host, keep_prefix) or None
    with connect() as client:
        changed = client.change_machine(
            machine,
            exposed_ports=ports,
            labels=labels,
            restart=restart,
            autostart=autostart,
            egress=egress(egress_rules),
            sleep_after_s=None if sleep_after is None else seconds(sleep_after),
            disks=[] if no_disks else disks(disk) if disk else None,
            port_options=options,
        )
    if as_json:
        say_json(to_json(changed))
    else:
        say(f"{changed.name} is changed.")


def start(machines: Machines, as_json: AsJson = False) -> None:
    """Start machines; returns when they run."""
    _each(machines, "start", Client.start_machine, _say_running, as_json=as_json)


def stop(machines: Machines, as_json: AsJson = False) -> None:
    """Stop machines in order; returns when they have ended."""
    _each(machines, "stop", Client.stop_machine, _say_status, as_json=as_json)


def pause(machines: Machines, as_json: AsJson = False) -> None:
    """Have machines stand still, their memory kept; their connections are closed."""
    _each(machines, "pause", Client.pause_machine, _say_status, as_json=as_json)


def sleep(machines: Machines, as_json: AsJson = False) -> None:
    """Put machines' memory on disk; `start` has them go on from there."""
    _each(machines, "sleep", Client.sleep_machine, _say_status, as_json=as_json)


def resume(machines: Machines, as_json: AsJson = False) -> None:
    """Have paused machines run on, with their clocks set."""
    _each(machines, "resume", Client.resume_machine, _say_status, as_json=as_json)


def restart(machines: Machines, as_json: AsJson = False) -> None:
    """Stop machines that run, and start them."""
    _each(machines, "restart", Client.restart_machine, _say_running, as_json=as_json)


def remove(
    machines: Machines,
    force: Annotated[bool, typer.Option("--force", "-f", help="Stop them first.")] = False,
) -> None:
    """Delete machines with their disks."""

    def delete(client: Client, ref: str) -> str:
        client.delete_machine(ref, force=force)
        return ref

    _each(machines, "delete", delete, lambda ref: say(f"{ref} is deleted."), as_json=False)


def wait(
    machine: Machine,
    status: Annotated[
        str,
        typer.Option(
            "--for", help="Any status of `docs/reference/states.md`, such as running or stopped."
        ),
    ] = "running",
    timeout: Annotated[float, typer.Option(help="Seconds, from 1 to 300.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Wait until a machine has a status; 1 when it has not in time."""
    with connect() as client, working(f"until {machine} is {status}"):
        found = client.wait_for_machine(machine, status, timeout=timeout)
    if as_json:
        say_json(to_json(found))
    else:
        _say_status(found)


def ports(machine: Machine, as_json: AsJson = False) -> None:
    """Show what listens in a machine now, and where it is reached."""
    with connect() as client:
        found = client.machine_ports(machine)
    if as_json:
        say_json(to_json(found))
        return
    rows = [
        (
            str(port.port),
            "listens" if port.listening else "-",
            port.address or "-",
            port.url,
        )
        for port in found.ports
    ]
    rows += [(str(port.port), "listens", port.address, "not exposed") for port in found.unexposed]
    say_table(("PORT", "SERVER", "BOUND TO", "URL"), rows)


def _each(
    refs: Sequence[str],
    verb: str,
    do: Callable[[Client, str], T],
    say_done: Callable[[T], None],
    *,
    as_json: bool,
) -> None:
    """Does it to all at once; what fails is told, and the rest is done. Ends with 1 if any did."""
    done: list[T] = []
    failed: list[tuple[str, ApiError]] = []
    with (
        connect() as client,
        working(f"{verb}: {', '.join(refs)}"),
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        # Twice the same is once.
        asked = [(ref, pool.submit(do, client, ref)) for ref in dict.fromkeys(refs)]
        for ref, answer in asked:
            try:
                done.append(answer.result())
            except ApiError as error:
                failed.append((ref, error))
    if len(refs) == 1 and failed:
        # With its advice and exit code.
        raise failed[0][1]
    if as_json:
        say_json({"machines": to_json(done)})
    else:
        for one in done:
            say_done(one)
    for ref, refusal in failed:
        complain(f"{ref}: {refusal.message}")
    if failed:
        raise typer.Exit(1)


def _say_status(machine: MachineValue) -> None:
    say(f"{machine.name} is {machine.status}.")


def _say_running(machine: MachineValue) -> None:
    _say_status(machine)
    for port in machine.ports:
        say(f"  port {port.port}: {port.url}")


_HOW = {"boot": "by booting", "template": "from a template", "memory": "from its memory"}


def _started(machine: MachineValue) -> str:
    """When, how, and how long it took."""
    at, how = moment(machine.started_at), machine.last_start
    if how is None:
        return at
    kind = _HOW.get(how.how, how.how)
    return f"{at}, {kind}, in {how.duration_ms / 1000:.2f} s{f' ({how.note})' if how.note else ''}"


def _command(machine: MachineValue) -> str | None:
    """What it runs, where, and how it stands with that."""
    if not machine.cmd:
        return None
    where = f" in {machine.cwd}" if machine.cwd else ""
    state = f" ({standing(machine.command)})" if machine.command else ""
    return f"{shlex.join(machine.cmd)}{where}{state}"


def _short(port: Port) -> str:
    """A port, marked when a server listens there."""
    return f"{port.port}*" if port.listening else str(port.port)


def _long(port: Port) -> str:
    if not port.listening:
        return f"{port.url} (nothing listens)"
    return f"{port.url} (a server on {port.address}, since {moment(port.since)})"


def _options(options: PortOptions) -> str:
    host = None if options.host is None else f"Host: {options.host}"
    prefix = None if options.strip_prefix else "the prefix stays on"
    return ", ".join(part for part in (host, prefix) if part)


def _since(machine: MachineValue) -> datetime:
    """When it came to be what it is."""
    started = machine.started_at if machine.status == "running" else None
    return started or machine.updated_at


def _disk(machine: MachineValue) -> str:
    size = machine.disk_size_mib
    return f"{machine.rootfs_path}{'' if size is None else f', {size} MiB'}"


def _network(machine: MachineValue) -> str:
    network = machine.network
    return f"{network.mode} {network.guest_ip or ''}".rstrip()


def _rules(machine: MachineValue) -> str:
    return ", ".join(
        ":".join(
            part
            for part in (
                rule.network,
                rule.protocol or "",
                ",".join(map(str, rule.ports)),
            )
            if part
        )
        for rule in machine.egress
        if not isinstance(rule, str)
    )
