"""What is told of rows that are not met."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks import limit, profile
from benchmarks.limit import Limit
from benchmarks.peers import Place
from benchmarks.processes import Proxy
from benchmarks.profile import Function

REPORT = """\

 1.56%  |[kernel.kallsyms]|[k] __alloc_skb
48.44%  |[nf_tables]      |[k] nft_do_chain
40.00%  |hyperfleet-proxy |[.] <core::net::ip_addr::Ipv4Addr as core::fmt::Display>::fmt
10.00%  |libc.so.6        |[.] __memmove_avx_unaligned_erms
no row
"""


def test_functions_are_read_from_the_table_of_perf():
    found = profile.parsed(REPORT)
    assert [replace(function, part=round(function.part, 4)) for function in found] == [
        Function(0.4844, "kernel", "nft_do_chain"),
        Function(
            0.4, "hyperfleet-proxy", "<core::net::ip_addr::Ipv4Addr as core::fmt::Display>::fmt"
        ),
        Function(0.1, "libc.so.6", "__memmove_avx_unaligned_erms"),
        Function(0.0156, "kernel", "__alloc_skb"),
    ]


def test_a_limit_tells_calls_of_both_and_the_first_functions_of_ours():
    functions = [Function(0.02, "kernel", f"f{number}") for number in range(40)]
    text = limit.markdown(
        Limit(
            "a row",
            "request",
            {
                "Hyperfleet": {"sendto": 2.0, "epoll_wait": 0.2, "close": 0.001},
                "nginx": {"writev": 1.0, "sendto": 3.0},
            },
            [Function(0.2, "hyperfleet-proxy", "parse"), *functions],
            ["system calls of HAProxy: no"],
        )
    )
    assert "| Hyperfleet | 2.20 | sendto 2.00, epoll_wait 0.20 |" in text
    assert "| nginx | 4.00 | sendto 3.00, writev 1.00 |" in text
    assert "Where the CPU time of Hyperfleet goes: kernel 80%, hyperfleet-proxy 20%." in text
    assert "| 20.0% | hyperfleet-proxy | `parse` |" in text
    assert "`f13`" in text
    assert "`f14`" not in text
    assert "| 52.0% | | 26 others |" in text
    assert "Not found out: system calls of HAProxy: no" in text


def test_what_could_not_be_found_out_stands_alone():
    text = limit.markdown(Limit("a row", "request", {}, [], ["a profile: perf is not here"]))
    assert text.strip() == "Not found out: a profile: perf is not here"


def test_what_perf_says_when_it_may_not_watch_is_the_reason(tmp_path, monkeypatch):
    tool = tmp_path / "perf"
    tool.write_text("#!/bin/sh\necho 'no access,' >&2\necho 'for you' >&2\nexit 255\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    place = Place(tmp_path, port=1, upstream_port=2, descriptors=3)
    with (
        pytest.raises(profile.ProfileError, match="perf can't watch the proxy: no access, for you"),
        profile.watched(cast("Proxy", SimpleNamespace(place=place, pids=[1]))),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["perf"]


def test_without_perf_there_is_a_reason(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(profile.ProfileError, match="make bench"):
        profile.require()
