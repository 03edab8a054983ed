"""How often a client may show keys that open nothing. Pure: it is told the time.

190 random bits are not found by trying; the limit is for the record, which each attempt asks, and
for the log. So a key that is known to be good passes whatever others behind the same address do
(`Keyring.has_met`), and only keys that nobody has seen wait.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

import msgspec

# Addresses that are remembered, those of the latest attempts; older ones have all they may again.
_MOST = 10_000
_IPV6_NETWORK = 64
_MINUTE = 60.0


class _Bucket(msgspec.Struct):
    """`left` attempts as of the time `at`, in seconds."""

    left: float
    at: float


class Attempts:
    """A token bucket for each client: a burst of `per_minute` failures, refilled over a minute."""

    def __init__(self, per_minute: int) -> None:
        """`per_minute` 0: no limit."""
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until this client may try again; 0 when it may now. `now`: monotonic seconds."""
        bucket = self._buckets.get(_client(address))
        if bucket is None:
            return 0
        missing = 1 - self._left(bucket, now)
        return max(0.0, missing * _MINUTE / self._per_minute)

    def failed(self, address: str, now: float) -> None:
        """Counts a key that opened nothing."""
        if self._per_minute == 0:
            return
        client = _client(address)
        bucket = self._buckets.pop(client, None)
        left = self._per_minute if bucket is None else self._left(bucket, now)
        self._buckets[client] = _Bucket(max(0.0, left - 1), now)
        if len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)

    def _left(self, bucket: _Bucket, now: float) -> float:
        refilled = (now - bucket.at) * self._per_minute / _MINUTE
        return min(float(self._per_minute), bucket.left + refilled)


def _client(address: str) -> str:
    """Who that is: an IPv4 address, or the /64 that one IPv6 host usually has all of (RFC 6177)."""
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:  # noqa: PLR2004
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed[:16], _IPV6_NETWORK), strict=False))
