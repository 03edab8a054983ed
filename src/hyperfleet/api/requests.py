"""What may be asked: bodies and queries, strict in types, names and ranges.

A field's `description` completes the sentence "… must be"; error messages and the OpenAPI document
are made of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hyperfleet.api.attached import DISKS, DisksIn, disks_of
from hyperfleet.api.egress import EGRESS, EgressIn, egress_of
from hyperfleet.api.names import NAME, Name
from hyperfleet.api.port_options import PORT_OPTIONS, PortOptionsByPort, port_options_of
from hyperfleet.auth.keys import Scope
from hyperfleet.machine import MachineChange, Restart

_MOST_ENV_BYTES = 128 * 1024
_MOST_COMMAND_BYTES = 64 * 1024


class Body(BaseModel):
    """A JSON object: no `"1"` for 1, no unknown names, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _distinct(items: list[Any]) -> list[Any]:
    if len(set(items)) != len(items):
        raise ValueError
    return items


def _encodable(text: str) -> str:
    """JSON can escape half a surrogate pair, which no UTF-8 can hold (RFC 8259, 8.2)."""
    text.encode()
    return text


def _fitting(variables: dict[str, str]) -> dict[str, str]:
    """They go into each exec, whose message to the agent holds 256 KiB."""
    if sum(len(name) + len(value.encode()) for name, value in variables.items()) > _MOST_ENV_BYTES:
        raise ValueError
    return variables


def _short(command: list[str]) -> list[str]:
    """It goes into one message to the agent, with the variables."""
    if sum(len(word.encode()) + 1 for word in command) > _MOST_COMMAND_BYTES:
        raise ValueError
    return command


def no_nul(text: str) -> str:
    """Text that a system call can take; ValueError: it is none."""
    if "\0" in text:
        raise ValueError
    return _encodable(text)


# A year.
_LONGEST_IDLE_S = 31_536_000


def _restart(text: Any) -> Any:
    return Restart(text) if isinstance(text, str) else text


def _scope(text: Any) -> Any:
    return Scope(text) if isinstance(text, str) else text


def _time(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError  # noqa: TRY004
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or moment <= datetime.now(UTC):
        raise ValueError
    return moment.astimezone(UTC)


# What the document says where a validator of ours decides.
_UNIQUE = {"uniqueItems": True}
_WITHOUT_NUL = {"pattern": "^[^\\u0000]*$"}

Line = Annotated[str, Field(json_schema_extra=_WITHOUT_NUL), AfterValidator(no_nul)]
ImagePath = Annotated[
    str,
    Field(min_length=1, max_length=4096, json_schema_extra=_WITHOUT_NUL),
    AfterValidator(no_nul),
]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]
VariableValue = Annotated[
    str, Field(max_length=32768, json_schema_extra=_WITHOUT_NUL), AfterValidator(no_nul)
]
LabelKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[
    str, Field(max_length=255, json_schema_extra=_WITHOUT_NUL), AfterValidator(no_nul)
]
Folder = Annotated[
    str,
    Field(min_length=1, max_length=4095, json_schema_extra=_WITHOUT_NUL),
    AfterValidator(no_nul),
]
# Each is a listening socket of the machine's process, whose descriptors are limited, and an entry
# in a route, which has to fit a frame.
Ports = Annotated[
    list[PortNumber], Field(max_length=512, json_schema_extra=_UNIQUE), AfterValidator(_distinct)
]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
MachineVariables = Annotated[
    dict[VariableName, VariableValue], Field(max_length=512), AfterValidator(_fitting)
]
Policy = Annotated[Restart, BeforeValidator(_restart)]
# 8 TiB: less than what a file can be where the host has ext4.
DiskSize = Annotated[int, Field(ge=16, le=8_388_608)]
DISK_SIZE = "a whole number of MiB from 16 to 8388608"
Drowsiness = Annotated[int, Field(ge=0, le=_LONGEST_IDLE_S)]
MachineCommand = Annotated[list[Line], Field(max_length=4096), AfterValidator(_short)]
Command = Annotated[list[Line], Field(min_length=1, max_length=4096)]
Variables = Annotated[dict[VariableName, VariableValue], Field(max_length=512)]

_VARIABLES = (
    "an object of at most 512 environment variables: names of letters, digits and _ that do not "
    "begin with a digit, values that are strings of at most 32768 characters without NUL"
)
_PORTS = "a list of at most 512 ports, whole numbers from 1 to 65535, none twice"
_LABELS = (
    "an object of at most 64 labels: keys of 1 to 63 letters, digits and inner ., _, / and -, "
    "values that are strings of at most 255 characters"
)
_RESTART = f"{', '.join(Restart)}: when it is started again after it ended by itself"
_SLEEP_AFTER = (
    f"seconds from 0 to {_LONGEST_IDLE_S} without use after which its memory is put on disk and it"
    " sleeps until it is started; 0: it never does by itself"
)
_AUTOSTART = "true or false: whether it comes up with the server if it ran before"
_COMMAND = (
    'a list of strings, the program and its arguments: pass ["ls", "-l"], not "ls -l"; '
    'for a shell: ["sh", "-c", "…"]'
)


class CreateMachine(Body):
    """A machine to make. What is left out is as the server's settings say."""

    name: Name = Field(description=NAME)
    vcpu_count: int = Field(
        ge=1, description="a whole number of at least 1 (and what the host has)"
    )
    mem_size_mib: int = Field(
        ge=4, description="a whole number of MiB of at least 4 (and what driver and host allow)"
    )
    kernel_image_path: ImagePath | None = Field(
        default=None,
        description="the path of a kernel in HYPERFLEET_HOME or a folder of HYPERFLEET_IMAGE_DIRS",
    )
    kernel_args: Annotated[str, Field(max_length=2048, pattern=r"^[ -~]*$")] | None = Field(
        default=None, description="printable ASCII of at most 2048 characters"
    )
    rootfs_path: ImagePath | None = Field(
        default=None,
        description="the path of a root disk in HYPERFLEET_HOME or a folder of "
        "HYPERFLEET_IMAGE_DIRS",
    )
    exposed_ports: Ports = Field(default=[], description=_PORTS)
    env: MachineVariables = Field(
        default={}, description=f"{_VARIABLES}; {_MOST_ENV_BYTES} bytes in all"
    )
    labels: Labels = Field(default={}, description=_LABELS)
    restart: Policy = Field(default=Restart.NEVER, description=_RESTART)
    autostart: bool = Field(default=False, description=_AUTOSTART)
    egress: EgressIn = Field(default="all", description=EGRESS)
    sleep_after_s: Drowsiness = Field(default=0, description=_SLEEP_AFTER)
    cmd: MachineCommand | None = Field(
        default=None,
        description=f"{_COMMAND}; {_MOST_COMMAND_BYTES} bytes in all; it runs from each start on",
    )
    cwd: Folder | None = Field(default=None, description="the path of a folder in it, for `cmd`")
    disk_size_mib: DiskSize | None = Field(
        default=None, description=f"{DISK_SIZE}, no less than its root disk's image has"
    )
    disks: DisksIn = Field(default=[], description=DISKS)
    port_options: PortOptionsByPort = Field(default={}, description=PORT_OPTIONS)


class ChangeMachine(Body):
    """What is to be different, each as the whole new one; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    # By factory, so that the document does not say that what is left out is emptied.
    exposed_ports: Ports = Field(default_factory=list, description=_PORTS)
    labels: Labels = Field(default_factory=dict, description=_LABELS)
    restart: Policy = Field(default_factory=lambda: Restart.NEVER, description=_RESTART)
    autostart: bool = Field(default_factory=bool, description=_AUTOSTART)
    egress: EgressIn = Field(default_factory=lambda: "all", description=EGRESS)
    sleep_after_s: Drowsiness = Field(default_factory=int, description=_SLEEP_AFTER)
    disks: DisksIn = Field(default_factory=list, description=DISKS)
    port_options: PortOptionsByPort = Field(default_factory=dict, description=PORT_OPTIONS)

    @model_validator(mode="before")
    @classmethod
    def _something(cls, data: Any) -> Any:
        if data == {}:
            names = ", ".join(cls.model_fields)
            raise ValueError(f"The body must be a JSON object with one or more of {names}")
        return data

    @property
    def change(self) -> MachineChange:
        """What was given."""
        given = self.model_fields_set
        return MachineChange(
            exposed_ports=tuple(self.exposed_ports) if "exposed_ports" in given else None,
            labels=self.labels if "labels" in given else None,
            restart=self.restart if "restart" in given else None,
            autostart=self.autostart if "autostart" in given else None,
            egress=egress_of(self.egress) if "egress" in given else None,
            sleep_after_s=self.sleep_after_s if "sleep_after_s" in given else None,
            disks=disks_of(self.disks) if "disks" in given else None,
            port_options=port_options_of(self.port_options) if "port_options" in given else None,
        )


class Process(Body):
    """A process to run; one of `cmd` and `command`, which mean the same."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [name], "properties": {name: {"type": "array"}}}
                for name in ("cmd", "command")
            ]
        }
    )

    cmd: Command | None = Field(default=None, description=_COMMAND)
    command: Command | None = Field(default=None, description=_COMMAND)
    cwd: Folder | None = Field(default=None, description="the path of a folder in the machine")
    env: Variables = Field(default={}, description=_VARIABLES)

    @model_validator(mode="before")
    @classmethod
    def _one_command(cls, data: Any) -> Any:
        if isinstance(data, dict):
            given = [name for name in ("cmd", "command") if data.get(name) is not None]
            if len(given) > 1:
                raise ValueError("cmd and command mean the same: pass one of them")
            if not given:
                raise ValueError(f"cmd is required: {_COMMAND}")
        return data

    @property
    def argv(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return tuple(self.cmd or self.command or ())


class ExecInMachine(Process):
    """A process to run to its end; one of `cmd` and `command`, which mean the same."""

    timeout: float = Field(
        default=30.0, ge=0.1, le=3600, description="a number of seconds from 0.1 to 3600"
    )
    stdin: Annotated[str, AfterValidator(_encodable)] = Field(
        default="", description="a string, what the process reads as its input"
    )


class CreateKey(Body):
    """A key to make."""

    name: Annotated[str, AfterValidator(_encodable)] = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="a string of 1 to 100 characters without control characters",
    )
    scopes: Annotated[
        list[Annotated[Scope, BeforeValidator(_scope)]],
        Field(min_length=1, json_schema_extra=_UNIQUE),
        AfterValidator(_distinct),
    ] = Field(description=f"a list of {', '.join(Scope)}, at least one, none twice")
    expires_at: Annotated[datetime, BeforeValidator(_time)] | None = Field(
        default=None,
        description="a time to come, ISO 8601 with its zone, such as 2030-01-31T12:00:00Z",
    )
