from __future__ import annotations

from pathlib import Path

from hyperfleet.images import apt

DEB822 = """\
Types: deb
# taken from a snapshot
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://stranger.example/
Suites: nodistro
Components: main

Types: deb
URIs: http://disabled.example/
Suites: bookworm
Components: main
Enabled: no
"""
ONE_LINE = """\
# deb http://comment.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://old.example/debian bookworm main contrib
deb-src http://old.example/debian bookworm main
deb http://stranger.example/apt cloud-sdk-bookworm main
deb http://security.example/debian-security bookworm-security main # with a comment
"""


def test_only_the_hosts_own_debian_sources_are_taken(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    (tmp_path / "sources.list").write_text(ONE_LINE)
    assert apt.debian_sources("bookworm", tmp_path) == (
        "Types: deb\n"
        "URIs: http://mirror.example/debian\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        "\n"
        "Types: deb\n"
        "URIs: http://old.example/debian\n"
        "Suites: bookworm\n"
        "Components: main contrib\n"
        "Signed-By: /usr/share/keyrings/a.gpg\n"
        "\n"
        "Types: deb\n"
        "URIs: http://security.example/debian-security\n"
        "Suites: bookworm-security\n"
        "Components: main\n"
    )


def test_a_host_without_debian_sources_has_none(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://mirror.example/ubuntu jammy main\n")
    assert apt.debian_sources("bookworm", tmp_path) is None
