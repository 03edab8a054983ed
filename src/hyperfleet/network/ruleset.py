"""The rules of nftables for machines that are attached by tap: text, a pure function of machines.

One table of each family that is needed (`inet`, `arp`), replaced as a whole or changed by elements,
each time in one transaction. A packet meets the same few rules however many machines there are:
what differs lies in sets and maps by the name of the tap, only a list of egress has a chain of its
own. Source: nft(8).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from hyperfleet.machine import Egress, EgressRule
from hyperfleet.network.egress import CLOSED, protocols


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as the rules see it. `gateway` is the host's address on its tap."""

    tap: str
    mac: str
    ip: str
    gateway: str
    egress: Egress


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all machines of a home.

    `host_ports`: TCP ports of the host that guests may connect to, at their gateway's address.
    `users`: who of the host may connect to guests, by user id. `flows`: how many connections of
    one guest the kernel tracks at a time; their table is the host's own.
    """

    table: str
    subnet: str
    host_ports: tuple[int, ...] = ()
    users: tuple[int, ...] = (0,)
    flows: int = 4096

    def whole(self, guests: Iterable[Guest]) -> str:
        """Replaces all that there is of these tables."""
        guests = list(guests)
        chains = "".join(_listed(guest) for guest in guests)
        taps = [_name(guest) for guest in guests]
        senders = [_sender(guest) for guest in guests]
        gateways = [_gateway(guest) for guest in guests]
        verdicts = [_verdict(guest) for guest in guests]
        askers = [_asker(guest) for guest in guests]
        return f"""{self.nothing()}
table inet {self.table} {{
  set taps {{ type ifname{_elements(taps)}; }}
  set senders {{ type ifname . ether_addr . ipv4_addr{_elements(senders)}; }}
  set gateways {{ type ifname . ipv4_addr{_elements(gateways)}; }}
  set host_ports {{ type inet_service{_elements(map(str, self.host_ports))}; }}
  set users {{ type uid{_elements(map(str, self.users))}; }}
  set flows {{ type ipv4_addr; size 65536; flags dynamic; }}
{_FIXED.format(subnet=self.subnet, closed=CLOSED, flows=self.flows)}{chains}
  map egress {{ type ifname : verdict{_elements(verdicts)}; }}

  chain from_guest {{
    oifname @taps goto refuse
    ip daddr {self.subnet} goto refuse
    ct state invalid drop
    tcp flags syn tcp option maxseg size set rt mtu
    ct state new add @flows {{ ip saddr ct count over {self.flows} }} goto refuse
    iifname vmap @egress
    goto refuse
  }}
}}
table arp {self.table} {{
  set taps {{ type ifname{_elements(taps)}; }}
  set askers {{ type ifname . ether_addr . ipv4_addr . ipv4_addr{_elements(askers)}; }}
{_ARP}}}
"""

    def nothing(self) -> str:
        """Removes the tables; no error when they are not there."""
        return "".join(
            f"add table {family} {self.table}\ndelete table {family} {self.table}\n"
            for family in ("inet", "arp")
        )

    def joining(self, guest: Guest) -> str:
        """Adds a machine that the tables do not have yet."""
        return self._chain(guest) + "".join(
            f"add element {place} {{ {element} }}\n" for place, element in self._places(guest)
        )

    def leaving(self, guest: Guest) -> str:
        """Takes a machine out that the tables have."""
        text = "".join(
            f"delete element {place} {{ {element} }}\n" for place, element in self._places(guest)
        )
        if not isinstance(guest.egress, str):
            text += f"delete chain inet {self.table} {guest.tap}\n"
        return text

    def changing(self, before: Guest, after: Guest) -> str:
        """Gives a machine other rules of egress, with no moment between the two."""
        return self.leaving(before) + self.joining(after)

    def _chain(self, guest: Guest) -> str:
        if isinstance(guest.egress, str):
            return ""
        chain = f"inet {self.table} {guest.tap}"
        lines = (f"add rule {chain} {line}\n" for line in _lines(guest.egress))
        return f"add chain {chain}\n{''.join(lines)}"

    def _places(self, guest: Guest) -> Collection[tuple[str, str]]:
        inet, arp = f"inet {self.table}", f"arp {self.table}"
        return (
            (f"{inet} taps", _name(guest)),
            (f"{inet} senders", _sender(guest)),
            (f"{inet} gateways", _gateway(guest)),
            (f"{inet} egress", _verdict(guest)),
            (f"{arp} taps", _name(guest)),
            (f"{arp} askers", _asker(guest)),
        )


# Before connections are tracked: a guest sends as itself or not at all, which leaves out IPv6; and
# nobody else sends as a guest. Refusing by a reset tells a guest at once what would else be a
# silence of minutes, and ends a connection that has become forbidden. From the host, a new
# connection is one of the data plane's or of root's, other users go by the proxy; and where a
# machine's tap is gone, nothing that was meant for it takes another way out.
_FIXED = """
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname @taps goto from_tap
    iifname != "lo" ip saddr {subnet} drop
  }}
  chain from_tap {{
    iifname . ether saddr . ip saddr @senders accept
    drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname @taps goto from_guest
    oifname @taps goto to_guest
  }}
  chain to_guest {{
    ct state established,related accept
    drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname @taps goto to_host
  }}
  chain to_host {{
    ct direction reply ct state established,related accept
    ct state new add @flows {{ ip saddr ct count over {flows} }} goto refuse
    iifname . ip daddr @gateways tcp dport @host_ports accept
    goto refuse
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname @taps goto from_host
    oifname != "lo" ip daddr {subnet} goto refuse
  }}
  chain from_host {{
    meta nfproto ipv6 drop
    ct state new meta skuid != @users goto refuse
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname @taps oifname != @taps masquerade
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain anywhere {{
    ip daddr {closed} goto refuse
    accept
  }}
"""

# A guest asks for its gateway, as itself. The host knows where guests are and asks nobody.
_ARP = """
  chain input {
    type filter hook input priority filter; policy accept;
    iifname @taps goto from_tap
  }
  chain from_tap {
    arp operation request iifname . arp saddr ether . arp saddr ip . arp daddr ip @askers accept
    drop
  }
"""


def _elements(elements: Iterable[str]) -> str:
    text = ", ".join(elements)
    return f"; elements = {{ {text} }}" if text else ""


def _name(guest: Guest) -> str:
    return f'"{guest.tap}"'


def _sender(guest: Guest) -> str:
    return f'"{guest.tap}" . {guest.mac} . {guest.ip}'


def _gateway(guest: Guest) -> str:
    return f'"{guest.tap}" . {guest.gateway}'


def _asker(guest: Guest) -> str:
    return f"{_sender(guest)} . {guest.gateway}"


def _verdict(guest: Guest) -> str:
    match guest.egress:
        case "all":
            verdict = "goto anywhere"
        case "none":
            verdict = "goto refuse"
        case _:
            verdict = f"goto {guest.tap}"
    return f'"{guest.tap}" : {verdict}'


def _listed(guest: Guest) -> str:
    if isinstance(guest.egress, str):
        return ""
    lines = "".join(f"    {line}\n" for line in _lines(guest.egress))
    return f"  chain {guest.tap} {{\n{lines}  }}\n"


def _lines(rules: Iterable[EgressRule]) -> Iterable[str]:
    """A list's rules; what none of them accepts is refused by the last."""
    for rule in rules:
        to = f"ip daddr {rule.network}"
        if rule.protocol is None and not rule.ports:
            yield f"{to} accept"
            continue
        what = f"meta l4proto {{ {', '.join(protocols(rule))} }}"
        if rule.ports:
            what += f" th dport {{ {', '.join(map(str, rule.ports))} }}"
        yield f"{to} {what} accept"
    yield "goto refuse"
