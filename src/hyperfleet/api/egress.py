"""Whom a machine may speak to, as it stands in bodies."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from hyperfleet.machine import Egress, EgressRule

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
# Which bits have to be 0 it can't say.
_NETWORK = rf"^{_OCTET}(\.{_OCTET}){{3}}(/([12]?[0-9]|3[0-2]))?$"
_MOST_RULES = 64
_MOST_PORTS = 64

EGRESS = (
    f'"all", "none", or a list of 1 to {_MOST_RULES} objects with network (an IPv4 network such as'
    ' 192.0.2.0/24, or an address), and if you like protocol ("tcp" or "udp") and ports (1 to'
    f" {_MOST_PORTS} ports, none twice)"
)


def _network(text: str) -> str:
    return str(IPv4Network(text))


def _distinct(ports: list[int]) -> list[int]:
    if len(set(ports)) != len(ports):
        raise ValueError
    return ports


class EgressRuleIn(BaseModel):
    """A network, and what a machine may speak to there; without ports: to all of them."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    network: Annotated[str, Field(pattern=_NETWORK), AfterValidator(_network)]
    # By factory, so that null is no way to say it.
    protocol: Literal["tcp", "udp"] = Field(default_factory=lambda: "tcp")
    ports: Annotated[
        list[Annotated[int, Field(ge=1, le=65535)]],
        Field(min_length=1, max_length=_MOST_PORTS, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_distinct),
    ] = Field(default_factory=list)


def _kind(value: Any) -> str:
    return "[rules]" if isinstance(value, list) else "[word]"


# The tags stand in brackets, as what is no step of the way into a body does (`validation`).
EgressIn = Annotated[
    Annotated[Literal["all", "none"], Tag("[word]")]
    | Annotated[list[EgressRuleIn], Field(min_length=1, max_length=_MOST_RULES), Tag("[rules]")],
    Discriminator(_kind),
]


class EgressRuleOut(BaseModel):
    network: str
    protocol: Literal["tcp", "udp"] | None = Field(
        description="null: both, and without ports every other protocol as well."
    )
    ports: list[int] = Field(description="Empty: all.")


EgressOut = Literal["all", "none"] | list[EgressRuleOut]


def egress_of(given: Literal["all", "none"] | list[EgressRuleIn]) -> Egress:
    """What was asked for."""
    if isinstance(given, str):
        return given
    return tuple(
        EgressRule(
            network=rule.network,
            protocol=rule.protocol if "protocol" in rule.model_fields_set else None,
            ports=tuple(rule.ports),
        )
        for rule in given
    )


def egress_out(egress: Egress) -> EgressOut:
    """As it is shown."""
    if isinstance(egress, str):
        return egress
    return [
        EgressRuleOut(network=rule.network, protocol=rule.protocol, ports=list(rule.ports))
        for rule in egress
    ]
