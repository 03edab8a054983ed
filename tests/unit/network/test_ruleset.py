"""The rules of nftables are text, and a function of machines."""

from __future__ import annotations

import msgspec

from hyperfleet.machine import EgressRule
from hyperfleet.network.ruleset import Guest, Rules

RULES = Rules(
    table="hyperfleet_0a1b2c3d", subnet="172.30.0.0/16", host_ports=(5432,), users=(0, 65534)
)
FREE = Guest(
    tap="hf-aaaaaaaaaaaa",
    mac="52:00:00:00:00:01",
    ip="172.30.0.2",
    gateway="172.30.0.1",
    egress="all",
)
LISTED = Guest(
    tap="hf-bbbbbbbbbbbb",
    mac="52:00:00:00:00:02",
    ip="172.30.0.6",
    gateway="172.30.0.5",
    egress=(
        EgressRule(network="10.0.0.0/8", ports=(80, 443)),
        EgressRule(network="192.0.2.53/32", protocol="udp", ports=(53,)),
        EgressRule(network="198.51.100.0/24", protocol="tcp"),
        EgressRule(network="203.0.113.0/24"),
    ),
)
# Whole, since what matters is what stands beside what.
WHOLE = """\
add table inet hyperfleet_0a1b2c3d
delete table inet hyperfleet_0a1b2c3d
add table arp hyperfleet_0a1b2c3d
delete table arp hyperfleet_0a1b2c3d

table inet hyperfleet_0a1b2c3d {
  set taps { type ifname; elements = { "hf-aaaaaaaaaaaa", "hf-bbbbbbbbbbbb" }; }
  set senders { type ifname . ether_addr . ipv4_addr; elements = { \
"hf-aaaaaaaaaaaa" . 52:00:00:00:00:01 . 172.30.0.2, \
"hf-bbbbbbbbbbbb" . 52:00:00:00:00:02 . 172.30.0.6 }; }
  set gateways { type ifname . ipv4_addr; elements = { \
"hf-aaaaaaaaaaaa" . 172.30.0.1, "hf-bbbbbbbbbbbb" . 172.30.0.5 }; }
  set host_ports { type inet_service; elements = { 5432 }; }
  set users { type uid; elements = { 0, 65534 }; }
  set flows { type ipv4_addr; size 65536; flags dynamic; }

  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname @taps goto from_tap
    iifname != "lo" ip saddr 172.30.0.0/16 drop
  }
  chain from_tap {
    iifname . ether saddr . ip saddr @senders accept
    drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname @taps goto from_guest
    oifname @taps goto to_guest
  }
  chain to_guest {
    ct state established,related accept
    drop
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname @taps goto to_host
  }
  chain to_host {
    ct direction reply ct state established,related accept
    ct state new add @flows { ip saddr ct count over 4096 } goto refuse
    iifname . ip daddr @gateways tcp dport @host_ports accept
    goto refuse
  }
  chain output {
    type filter hook output priority filter; policy accept;
    oifname @taps goto from_host
    oifname != "lo" ip daddr 172.30.0.0/16 goto refuse
  }
  chain from_host {
    meta nfproto ipv6 drop
    ct state new meta skuid != @users goto refuse
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    iifname @taps oifname != @taps masquerade
  }
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
  chain anywhere {
    ip daddr 169.254.0.0/16 goto refuse
    accept
  }
  chain hf-bbbbbbbbbbbb {
    ip daddr 10.0.0.0/8 meta l4proto { tcp, udp } th dport { 80, 443 } accept
    ip daddr 192.0.2.53/32 meta l4proto { udp } th dport { 53 } accept
    ip daddr 198.51.100.0/24 meta l4proto { tcp } accept
    ip daddr 203.0.113.0/24 accept
    goto refuse
  }

  map egress { type ifname : verdict; elements = { \
"hf-aaaaaaaaaaaa" : goto anywhere, "hf-bbbbbbbbbbbb" : goto hf-bbbbbbbbbbbb }; }

  chain from_guest {
    oifname @taps goto refuse
    ip daddr 172.30.0.0/16 goto refuse
    ct state invalid drop
    tcp flags syn tcp option maxseg size set rt mtu
    ct state new add @flows { ip saddr ct count over 4096 } goto refuse
    iifname vmap @egress
    goto refuse
  }
}
table arp hyperfleet_0a1b2c3d {
  set taps { type ifname; elements = { "hf-aaaaaaaaaaaa", "hf-bbbbbbbbbbbb" }; }
  set askers { type ifname . ether_addr . ipv4_addr . ipv4_addr; elements = { \
"hf-aaaaaaaaaaaa" . 52:00:00:00:00:01 . 172.30.0.2 . 172.30.0.1, \
"hf-bbbbbbbbbbbb" . 52:00:00:00:00:02 . 172.30.0.6 . 172.30.0.5 }; }

  chain input {
    type filter hook input priority filter; policy accept;
    iifname @taps goto from_tap
  }
  chain from_tap {
    arp operation request iifname . arp saddr ether . arp saddr ip . arp daddr ip @askers accept
    drop
  }
}
"""


def test_the_whole() -> None:
    assert RULES.whole([FREE, LISTED]) == WHOLE


def test_machines_add_elements_and_no_rules() -> None:
    many = [
        msgspec.structs.replace(FREE, tap=f"hf-{n:012}", ip=f"172.30.{n >> 6}.{n % 64 * 4 + 2}")
        for n in range(1000)
    ]
    lines = RULES.whole(many).splitlines()
    assert len(lines) == len(RULES.whole([FREE]).splitlines())


def test_without_machines_no_set_has_elements_of_theirs() -> None:
    text = RULES.whole([])
    assert "hf-" not in text
    assert text.count("elements") == 2  # ports and users


def test_one_joins_and_leaves_by_elements() -> None:
    joining = RULES.joining(FREE).splitlines()
    leaving = RULES.leaving(FREE).splitlines()
    assert [line.replace("add ", "delete ", 1) for line in joining] == leaving
    assert len(joining) == 6
    assert all(line.startswith("add element ") for line in joining)


def test_a_list_has_a_chain_of_its_own() -> None:
    joining = RULES.joining(LISTED).splitlines()
    assert joining[0] == "add chain inet hyperfleet_0a1b2c3d hf-bbbbbbbbbbbb"
    assert joining[5] == "add rule inet hyperfleet_0a1b2c3d hf-bbbbbbbbbbbb goto refuse"
    # It can go only once nothing leads to it.
    leaving = RULES.leaving(LISTED).splitlines()
    assert leaving[-1] == "delete chain inet hyperfleet_0a1b2c3d hf-bbbbbbbbbbbb"
    changing = RULES.changing(LISTED, FREE)
    assert changing == RULES.leaving(LISTED) + RULES.joining(FREE)
