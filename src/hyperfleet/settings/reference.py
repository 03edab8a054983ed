"""The settings' page of the reference, made from the table.

`python -m hyperfleet.settings.reference FILE` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hyperfleet.settings.table import SETTINGS

_HEAD = """\
# Settings

Read once at start, from the environment, over a file `.env` in the working directory, over these
defaults; an empty variable counts as unset. `hyperfleet serve` checks all of them first: each that
is wrong gets a line on stderr, and it exits with 2. `hyperfleet settings` shows every value and
where it came from.

| name | default | may be | |
|---|---|---|---|
"""

_TAIL = """
`DISABLE_AUTH=true` also lets nobody in who calls the server by another name than localhost, no
web page of another origin, and no program inside one of this server's machines.

A machine that is attached by user networking reaches the internet, if passt is installed, and
nothing of this host, save `HYPERFLEET_NETWORK_HOST_PORTS` of its loopback:
[user networking](../how-to/networks-user.md). With `HYPERFLEET_NETWORK_RESTRICT=true` machines
connect to nothing; the proxy, exec and the console work as before. Both count from a machine's next
start.

`HYPERFLEET_NETWORK=auto` is `user`, for root as well: taps make a router of this host (IPv4
forwarding, rules of nftables, a subnet), which is for you to decide. With `tap`, machines reach
neither each other nor this host, save `HYPERFLEET_NETWORK_HOST_PORTS`, and the internet as each
one's `egress` says: [networks by tap](../how-to/networks-tap.md).

The command line further reads `HYPERFLEET_URL` (the server to talk to; default: the one that the
settings describe) and `HYPERFLEET_API_KEY` (default: `HYPERFLEET_HOME/api-key`, sent to this
computer only). Over HTTPS it trusts the authorities that this host trusts, and those in the files
that `SSL_CERT_FILE` and `SSL_CERT_DIR` name; so does the SDK.
"""


def page() -> str:
    """The page, in Markdown."""
    rows = "".join(
        f"| `{setting.name}` | {_default(setting.default)} | {setting.may_be} | {setting.about} |\n"
        for setting in SETTINGS
    )
    return f"{_HEAD}{rows}{_TAIL}"


def _default(text: str | None) -> str:
    match text:
        case None:
            return "unset"
        case "":
            return "empty"
        case _:
            return f"`{text}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
