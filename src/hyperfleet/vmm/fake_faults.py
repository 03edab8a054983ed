"""What may go wrong with a fake machine, on demand.

Asked for in the machine's kernel arguments, `fake.boot=panic fake.delay=0.5`, so that it works
through the API too; or given to the driver as a function.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from hyperfleet.errors import ValidationError
from hyperfleet.vmm.driver import LaunchSpec


class Boot(StrEnum):
    """How a boot goes."""

    OK = "ok"
    # The process runs, its agent never answers.
    NEVER = "never"
    # The same, and it is seen that nothing goes on in it; always, or the first time.
    HANGS = "hangs"
    HANGS_ONCE = "hangs-once"
    # The kernel dies, with its words on the console.
    PANIC = "panic"
    # The agent finds no disk, says so and powers off.
    NO_DISK = "no-disk"
    # The process itself would not start.
    REFUSED = "refused"


class Clone(StrEnum):
    """How a start goes that is a clone of a template."""

    OK = "ok"
    # The process runs, its agent never answers.
    NEVER = "never"
    # The process ends before.
    DIES = "dies"


class Channel(StrEnum):
    """How the agent behaves once it has answered."""

    OK = "ok"
    # Noise, broken frames and answers that nobody asked for, around each real one.
    GARBAGE = "garbage"
    # Frames without end that answer nothing, and no welcome.
    FLOODS = "floods"
    # A frame that never ends; one over the bound; one that claims to hold more than there is.
    ENDLESS = "endless"
    OVERLONG = "overlong"
    CLAIMS = "claims"
    # After each answer one to a question that was never asked; an end before the output.
    UNASKED = "unasked"
    DISORDER = "disorder"
    # It chooses a version that it was not offered, and frames in another one.
    VERSION = "version"
    # More listening ports than may be told; output without end.
    PORTS = "ports"
    OUTPUT = "output"
    # Names and words that would move a terminal's cursor, at great length.
    ESCAPES = "escapes"
    # It shakes hands and says no more.
    MUTE = "mute"
    # It hangs up at every call but the handshake.
    DROPS = "drops"
    # Its kernel does not tell it of listening sockets.
    DEAF = "deaf"
    # Whenever it is asked for news, it has some.
    RESTLESS = "restless"


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's faults, and what else it does of itself. Times in seconds."""

    boot: Boot = Boot.OK
    channel: Channel = Channel.OK
    clone: Clone = Clone.OK
    # From start to the agent's first answer (or to the end that `boot` tells of).
    delay: float = 0.0
    # From start to the process's death by SIGKILL.
    dies_after: float | None = None
    # It runs on when the control plane ends, as real ones do; its disk is empty afterwards.
    survives: bool = False
    # A port at which it serves its disk's pages from the boot on.
    listens: int | None = None


def from_kernel_args(launch: LaunchSpec) -> Faults:
    """The `fake.` words of the machine's kernel arguments.

    Raises:
        ValidationError: such a word is unknown, or its value is.
    """
    asked: dict[str, str] = {}
    for word in (launch.kernel_args or "").split():
        name, is_assignment, value = word.partition("=")
        if name.startswith("fake.") and is_assignment:
            asked[name.removeprefix("fake.")] = value
    unknown = asked.keys() - set(Faults.__struct_fields__)
    if unknown:
        raise ValidationError(f"kernel_args: fake.{min(unknown)} is no fault")
    try:
        return msgspec.convert(asked, Faults, strict=False)
    except msgspec.ValidationError as error:
        raise ValidationError(f"kernel_args: fake.: {error}") from error
