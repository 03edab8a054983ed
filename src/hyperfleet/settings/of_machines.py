"""The settings of what machines run by: driver, network, room, starts and ends."""

from __future__ import annotations

from hyperfleet.settings import values as value
from hyperfleet.settings.setting import Setting

MACHINES: tuple[Setting, ...] = (
    Setting("HYPERFLEET_VMM", "auto", *value.choice("auto", "qemu", "fake"), "The driver."),
    Setting(
        "HYPERFLEET_NETWORK",
        "auto",
        *value.choice("auto", "user", "tap"),
        "How new machines are attached; `user` needs no root, `tap` does; `auto` is `user`.",
    ),
    Setting(
        "HYPERFLEET_NETWORK_RESTRICT",
        "false",
        *value.switch,
        "Machines only answer: they reach no internet and nothing on this host's loopback.",
    ),
    Setting(
        "HYPERFLEET_NETWORK_HOST_PORTS",
        "",
        *value.ports,
        "TCP ports of this host that machines may connect to.",
    ),
    Setting(
        "HYPERFLEET_DNS",
        "",
        *value.resolvers,
        "Whom machines that are attached by tap ask for names; empty: whom this host asks.",
    ),
    Setting(
        "HYPERFLEET_SUBNET",
        "172.16.0.0/16",
        *value.subnet,
        "Where machines that are attached by tap get their addresses.",
    ),
    Setting(
        "HYPERFLEET_BOOTS_AT_ONCE",
        "4",
        *value.number(1, 1000, "machines"),
        "How many machines may boot at the same time; the others queue.",
    ),
    Setting(
        "HYPERFLEET_BOOT_QUEUE",
        "1000",
        *value.number(0, 1_000_000, "machines"),
        "How many starts may wait for their turn, the keys in turn; over it clients get 503.",
    ),
    Setting(
        "HYPERFLEET_TEMPLATES",
        "4",
        *value.number(0, 1000, "templates"),
        "How many shapes of machine are kept ready to be cloned, so that a start need not boot; "
        "each takes 70 to 100 MiB of disk, and of memory once it is used. 0: every start boots.",
    ),
    Setting(
        "HYPERFLEET_MEMORY_RESERVE_MIB",
        "512",
        *value.number(0, 1_000_000_000, "MiB"),
        "How much of the host's memory no machine is promised.",
    ),
    Setting(
        "HYPERFLEET_MEMORY_OVERCOMMIT_PERCENT",
        "100",
        *value.number(1, 10_000, "percent"),
        "How much of the rest machines are promised; over 100, that they don't use all of theirs.",
    ),
    Setting(
        "HYPERFLEET_CPU_OVERCOMMIT_PERCENT",
        "1600",
        *value.number(1, 1_000_000, "percent"),
        "How many virtual CPUs machines are promised, of the host's.",
    ),
    Setting(
        "HYPERFLEET_DISK_RESERVE_MIB",
        "256",
        *value.number(0, 1_000_000_000, "MiB"),
        "How much of the disk that HYPERFLEET_HOME lies on stays free: starts, snapshots and new "
        "disks that would take of it are refused with 503, and templates are not made.",
    ),
    Setting(
        "HYPERFLEET_CGROUPS",
        "auto",
        *value.choice("auto", "off"),
        "Whether machines' processes have limits by cgroups, as far as the host lets this server.",
    ),
    Setting(
        "HYPERFLEET_CGROUP_MEMORY_MIB",
        "256",
        *value.number(64, 1_000_000, "MiB"),
        "What the processes of a machine may have in memory beside the guest's, in a cgroup; over "
        "it they are killed.",
    ),
    Setting(
        "HYPERFLEET_CGROUP_CPU_PERCENT",
        "100",
        *value.number(10, 100_000, "percent"),
        "What they may take of a CPU beside the machine's virtual ones.",
    ),
    Setting(
        "HYPERFLEET_CGROUP_IO_MAX",
        None,
        *value.io_max,
        "What each machine may read and write in a second of the disk that HYPERFLEET_HOME lies "
        "on; unset: no limit.",
    ),
    Setting(
        "HYPERFLEET_BOOT_DEADLINE_MS",
        "60000",
        *value.number(1_000, 3_600_000, "milliseconds"),
        "A machine whose agent has not answered by then has failed.",
    ),
    Setting(
        "HYPERFLEET_STOP_GRACE_MS",
        "5000",
        *value.number(0, 600_000, "milliseconds"),
        "How long a guest may take to power itself off before it is killed.",
    ),
    Setting(
        "HYPERFLEET_RESTART_WAIT_MS",
        "1000",
        *value.number(1, 86_400_000, "milliseconds"),
        "How long a machine that is started again by itself waits the first time; then twice that.",
    ),
    Setting(
        "HYPERFLEET_RESTART_LONGEST_WAIT_MS",
        "60000",
        *value.number(1, 86_400_000, "milliseconds"),
        "The longest of these waits.",
    ),
    Setting(
        "HYPERFLEET_RESTART_CALM_MS",
        "600000",
        *value.number(1, 86_400_000, "milliseconds"),
        "A machine that has run so long is sound: its waits and tries begin anew.",
    ),
    Setting(
        "HYPERFLEET_RESTART_TRIES",
        "10",
        *value.number(0, 1_000_000, "starts"),
        "How often in a row a machine is started again by itself; 0: without end.",
    ),
)
