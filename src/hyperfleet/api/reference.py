"""Pages of the reference that are made from tables: the states, and the errors.

`python -m hyperfleet.api.reference FOLDER` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hyperfleet import errors
from hyperfleet.api.errors import STATUS
from hyperfleet.fleet.agenda import Act, Arrival, Want, interrupts, on_arrival, on_turn
from hyperfleet.lifecycle import ALIVE, TRANSITIONS, Status

_STATES_HEAD = """\
# States of a machine

Made from the tables that decide (`lifecycle.py`, `fleet/agenda.py`): nothing else does.

"""

_MEANING = {
    Status.PENDING: "It was made and never started.",
    Status.STARTING: "Its process is made, or its guest comes up.",
    Status.RUNNING: "Its agent answers; the proxy leads to it.",
    Status.PAUSED: "Its processors stand still, its memory stays; the proxy turns clients away.",
    Status.SLEEPING: "All that it had in memory is on disk, or, while `pid` is not null, on its way"
    " there; a start has it go on from there.",
    Status.STOPPING: "The proxy turns clients away already; its guest ends what it does.",
    Status.STOPPED: "It was stopped, or has powered itself off. Its disk stays.",
    Status.FAILED: "It did not come up, or has died; `error_message` says why.",
}

_ASKED = {
    Want.START: "start",
    Want.STOP: "stop",
    Want.RESTART: "restart",
    Want.DELETE: "delete",
    Want.PAUSE: "pause",
    Want.RESUME: "resume",
    Want.SLEEP: "sleep",
    Want.SNAPSHOT: "snapshot",
    Want.RESTORE: "restore",
    Want.CHANGE: "change",
}

_ANSWERS = """
Twenty clients that start a machine start it once and have twenty answers. What must wait for its
turn waits. A refusal is 409 `INVALID_STATE` and says what to do instead.

## Why a machine goes from one to another by itself

- To `failed` from `running`: its process has ended without its guest's having powered off. From
  `starting`: it did not come up in time, or its process has ended.
- To `stopped` from `running`: its guest has powered itself off.
- To `sleeping` from `running`: nobody has used it for its `sleep_after_s`. From `starting`: it
  could not be woken; `error_message` says why, and what it had in memory is still there.
- To `running` from `sleeping`: it was used at that very moment, or could not be put to sleep.
- To `sleeping` or `stopped` from what is at rest: a [snapshot](../how-to/snapshots.md) was put
  back.
- To `starting`: by `restart` (on-failure, always) after growing waits, or by `autostart` with the
  server; `next_start_at` says when.
"""

_ERRORS_HEAD = """\
# Errors

## The API's

Each is `{"error": {"code": "…", "message": "…"}}`. Programs go by the code; the message is for
people and says what to do.

"""

_BY_THE_API = {
    "METHOD_NOT_ALLOWED": "The path is there and takes other methods, which `Allow` names.",
    "INTERNAL_ERROR": "The server failed; its log has the cause under the id in the message.",
}

# Code, status, when. The texts are the data plane's own (crates/proxy/src/answer.rs).
_PROXY = (
    (
        "bad_request",
        "400, 405, 501, 505",
        "The request breaks a rule of HTTP/1.1; the text says which.",
    ),
    ("port_not_exposed", "403", "The machine runs and does not expose that port."),
    ("machine_not_found", "404", "No machine has that name or id."),
    ("not_found", "404", "The path, or the host, leads to no machine at all."),
    ("request_timeout", "408", "The request did not arrive whole in time."),
    ("too_large", "413, 414, 431", "Its body, its target or its head is over a bound."),
    (
        "upstream_connect_failed",
        "502",
        "Nothing listens on that port of the machine, or it ended the connection without a word.",
    ),
    ("upstream_invalid_response", "502", "What the machine sent is no response of HTTP/1.1."),
    ("machine_not_running", "503", "The machine is in another state than `running`."),
    (
        "over_capacity",
        "503",
        "The machine's bound is met, or the client's address's, or the proxy's own; `Retry-After`.",
    ),
    ("upstream_timeout", "504", "The machine did not answer in time."),
)

_PROXY_HEAD = """
## The proxy's

`{"error": "…"}` for programs, a page for browsers; the code is in the header `X-Hyperfleet-Error`.
An answer without that header is the machine's own. Bounds are in [bounds](bounds.md).

"""

_EXITS = """
## The command line's

`hyperfleet serve` exits with 2 for what its user can mend (a setting, a port that is taken, a home
that another server holds, a damaged database) and with 1 otherwise; the reason is one line on
stderr.
"""


def states() -> str:
    """docs/reference/states.md."""
    rows = [
        (f"`{state}`", _MEANING[state], "yes" if state in ALIVE else "", _names(TRANSITIONS[state]))
        for state in Status
    ]
    asked = [(f"`{state}`", *(_answer(state, want) for want in _ASKED)) for state in Status]
    return "".join(
        (
            _STATES_HEAD,
            _table(("state", "", "has a process", "goes on to"), rows),
            "\n## What may be asked in each\n\n",
            _table(("", *(f"`{word}`" for word in _ASKED.values())), asked),
            _ANSWERS,
        )
    )


def failures() -> str:
    """docs/reference/errors.md."""
    words = {kind.code: kind for kind in _kinds()}
    rows = [
        (str(status), f"`{code}`", _BY_THE_API.get(code) or _sentence(words[code]))
        for code, status in sorted(STATUS.items(), key=lambda item: item[1])
    ]
    proxy = [(status, f"`{code}`", when) for code, status, when in _PROXY]
    return "".join(
        (
            _ERRORS_HEAD,
            _table(("status", "code", "when"), rows),
            _PROXY_HEAD,
            _table(("status", "code", "when"), proxy),
            _EXITS,
        )
    )


def _answer(state: Status, want: Want) -> str:
    under_way = {Status.STARTING: Want.START, Status.STOPPING: Want.STOP}.get(state)
    if under_way is not None:
        arrival = on_arrival(state, under_way, (), want, force=False)
        if arrival is Arrival.JOIN:
            return "shares its answer"
        if arrival is Arrival.WAIT:
            return "ends the start" if interrupts(under_way, [want]) else "yes, after that"
    plan = on_turn(state, want, force=False)
    if isinstance(plan, str):
        return f"no: {plan}"
    if not plan:
        return "it is so"
    return "yes, and it is stopped first" if _stops_first(plan, want) else "yes"


def _stops_first(plan: Sequence[Act], want: Want) -> bool:
    return want is not Want.STOP and bool({Act.HALT, Act.HALT_TO_START, Act.CUT} & {*plan})


def _names(states_: Iterable[Status]) -> str:
    return ", ".join(f"`{state}`" for state in Status if state in states_)


def _kinds() -> Iterator[type[errors.HyperfleetError]]:
    """Those that all parts share."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.HyperfleetError):
            yield kind


def _sentence(kind: type[errors.HyperfleetError]) -> str:
    return str(kind.__doc__).strip().splitlines()[0]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PAGES = {"states.md": states, "errors.md": failures}


if __name__ == "__main__":
    for name, page in PAGES.items():
        Path(sys.argv[1], name).write_text(page(), encoding="utf-8")
