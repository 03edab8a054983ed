"""How requests go to exposed ports, as it stands in bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hyperfleet.machine import PortOptions

_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
# Narrower than a host of RFC 3986, of which nobody needs the rest. Addresses are looked at again.
_HOST = rf"^([A-Za-z0-9._-]{{1,253}}|\[[0-9A-Fa-f:.]{{2,45}}\])(:{_PORT})?$"

PORT_OPTIONS = (
    "an object with what is to be different for some of its exposed_ports, such as"
    ' {"5173": {"host": "localhost:5173", "strip_prefix": false}}: host (a name or address, and'
    " :PORT if you like) is what the server there gets as Host, null: what the client sent;"
    " strip_prefix (true or false) is whether the proxy cuts its prefix off by path"
)


def _host(host: str) -> str:
    if host.startswith("["):
        IPv6Address(host[1:].partition("]")[0])
    return host


class PortOptionsIn(BaseModel):
    """What is to be different for one port; what is left out is as usual."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    host: Annotated[str, Field(pattern=_HOST), AfterValidator(_host)] | None = None
    strip_prefix: bool = True


# As many as there can be exposed ports.
PortOptionsByPort = Annotated[
    dict[Annotated[str, Field(pattern=f"^{_PORT}$")], PortOptionsIn], Field(max_length=512)
]


class PortOptionsOut(BaseModel):
    host: str | None = Field(
        description="What its server gets as Host; null: what the client sent."
    )
    strip_prefix: bool = Field(description="Whether the proxy cuts its prefix off by path.")


def port_options_of(given: Mapping[str, PortOptionsIn]) -> tuple[PortOptions, ...]:
    """What was asked for, in the order of ports; one that asks for nothing is none."""
    asked = [
        PortOptions(port=int(port), host=options.host, strip_prefix=options.strip_prefix)
        for port, options in given.items()
    ]
    asked = [options for options in asked if options != PortOptions(port=options.port)]
    return tuple(sorted(asked, key=lambda options: options.port))


def port_options_out(options: Sequence[PortOptions]) -> dict[str, PortOptionsOut]:
    """As they are shown."""
    return {
        str(one.port): PortOptionsOut(host=one.host, strip_prefix=one.strip_prefix)
        for one in options
    }
