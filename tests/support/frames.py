"""Ethernet frames that a test has a guest send, byte by byte (RFC 826, 791, 768, 9293, 8200)."""

from __future__ import annotations

import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"


def arp(kind: int, *, mac: str, ip: str, of: str, to: str = BROADCAST) -> bytes:
    """`kind` 1 asks who has `of`; 2 claims that `mac` has `ip`."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, kind)
    body += _mac(mac) + socket.inet_aton(ip) + bytes(6) + socket.inet_aton(of)
    return _mac(to) + _mac(mac) + b"\x08\x06" + body


def udp(word: str, *, mac: str, to_mac: str, ip: str, to: str, port: int) -> bytes:
    """A datagram of IPv4, or of IPv6 if `to` is such an address."""
    datagram = struct.pack("!HHHH", 9999, port, 8 + len(word), 0) + word.encode()
    if ":" in to:
        ends = socket.inet_pton(socket.AF_INET6, ip) + socket.inet_pton(socket.AF_INET6, to)
        pseudo = ends + struct.pack("!IxxxB", len(datagram), socket.IPPROTO_UDP)
        datagram = datagram[:6] + struct.pack("!H", _sum(pseudo + datagram)) + datagram[8:]
        head = struct.pack("!IHBB", 6 << 28, len(datagram), socket.IPPROTO_UDP, 64) + ends
        kind = b"\x86\xdd"
    else:
        head = _ipv4(socket.IPPROTO_UDP, len(datagram), ip, to)
        kind = b"\x08\x00"
    return _mac(to_mac) + _mac(mac) + kind + head + datagram


def syn(
    *,
    mac: str,
    to_mac: str,
    ip: str,
    to: str,
    port: int,
    segment: int = 1460,
    from_port: int = 9999,
) -> bytes:
    """The first packet of a connection by TCP over IPv4, with its largest segment (RFC 9293)."""
    # Six words of four bytes; SYN.
    text = struct.pack(
        "!HHIIBBHHHBBH", from_port, port, 1, 0, 6 << 4, 2, 65535, 0, 0, 2, 4, segment
    )
    ends = socket.inet_aton(ip) + socket.inet_aton(to)
    total = _sum(ends + struct.pack("!HH", socket.IPPROTO_TCP, len(text)) + text)
    text = text[:16] + struct.pack("!H", total) + text[18:]
    head = _ipv4(socket.IPPROTO_TCP, len(text), ip, to)
    return _mac(to_mac) + _mac(mac) + b"\x08\x00" + head + text


def _ipv4(protocol: int, length: int, ip: str, to: str) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, protocol, 0)
    head += socket.inet_aton(ip) + socket.inet_aton(to)
    return head[:10] + struct.pack("!H", _sum(head)) + head[12:]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _sum(data: bytes) -> int:
    """The internet's checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
