"""What the environment may say, and what is said back."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hyperfleet.errors import SettingsError
from hyperfleet.settings import SETTINGS, Loaded, Settings, load, show
from hyperfleet.settings.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def of(**environment: str) -> Settings:
    return load(environment, None).settings


def complaints(**environment: str) -> list[str]:
    with pytest.raises(SettingsError) as refusal:
        load(environment, None)
    return refusal.value.message.splitlines()


def test_defaults() -> None:
    settings = of()
    assert (settings.host, settings.port) == ("127.0.0.1", 3000)
    assert (settings.proxy_bind, settings.proxy_port) == ("127.0.0.1", 4000)
    assert (settings.proxy_prefix, settings.proxy_host_suffix) == ("/proxy", None)
    assert settings.proxy_exposed_port_poll_interval_ms == 10000
    assert settings.proxy_trusted_proxies == ("127.0.0.0/8", "::1")
    assert settings.database_path == Path("hyperfleet.db")
    assert settings.disable_auth is False
    assert settings.hyperfleet_home == Path(".hyperfleet")
    assert settings.hyperfleet_kernel_image_path == ".hyperfleet/vmlinux"
    assert settings.hyperfleet_rootfs_path == ".hyperfleet/rootfs.ext4"
    assert settings.hyperfleet_subnet == "172.16.0.0/16"


def test_the_table_and_the_struct_have_the_same_rows() -> None:
    assert [setting.name.lower() for setting in SETTINGS] == list(Settings.__struct_fields__)


def test_the_page_is_the_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        of().port = 1  # type: ignore[misc]


def test_images_follow_the_home() -> None:
    settings = of(HYPERFLEET_HOME="/srv/fleet", HYPERFLEET_ROOTFS_PATH="own.ext4")
    assert settings.hyperfleet_kernel_image_path == "/srv/fleet/vmlinux"
    assert settings.hyperfleet_rootfs_path == "own.ext4"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PORT", "0", 0),
        ("PORT", "65535", 65535),
        ("HOST", "localhost", "127.0.0.1"),
        ("HOST", "[::1]", "::1"),
        ("PROXY_PREFIX", "/a/b-c", "/a/b-c"),
        ("PROXY_HOST_SUFFIX", "Local.Dev", ".local.dev"),
        ("PROXY_HOST_SUFFIX", ".local.dev", ".local.dev"),
        ("PROXY_TRUSTED_PROXIES", "10.0.0.1, 10.1.0.0/16", ("10.0.0.1", "10.1.0.0/16")),
        ("PROXY_TRUSTED_PROXIES", "", ()),
        ("PROXY_ACCESS_LOG", "-", Path("-")),
        ("PROXY_ACCESS_LOG", "", None),
        ("DISABLE_AUTH", "True", True),
        ("DISABLE_AUTH", "0", False),
        ("DATABASE_URL", "sqlite:////srv/x.db", "sqlite:////srv/x.db"),
        ("HYPERFLEET_IMAGE_DIRS", "/a:b", (Path("/a"), Path("b"))),
        ("HYPERFLEET_KERNEL_ARGS", "console=ttyS0 quiet", "console=ttyS0 quiet"),
        ("HYPERFLEET_NETWORK", "tap", "tap"),
        ("HYPERFLEET_NETWORK_HOST_PORTS", "5432, 6379", (5432, 6379)),
        ("HYPERFLEET_DNS", "192.0.2.53,192.0.2.54", ("192.0.2.53", "192.0.2.54")),
        ("HYPERFLEET_CGROUPS", "OFF", "off"),
        ("HYPERFLEET_CGROUP_IO_MAX", "wiops=5  rbps=1000", "rbps=1000 wiops=5"),
        ("HYPERFLEET_CGROUP_IO_MAX", "", None),
        ("LOG_LEVEL", "DEBUG", "debug"),
    ],
)
def test_good_values(name: str, text: str, value: object) -> None:
    assert getattr(of(**{name: text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("PORT", ["x", "-1", "65536", "1.5", "+1", "1_0", " 80", "0x50", "٣"]),
        ("HOST", ["example.org", "127.0.0", "1.2.3.4:80", "::1%lo x"]),
        ("PROXY_PORT", ["x", "65536"]),
        ("PROXY_BIND", ["*", "any"]),
        ("PROXY_PREFIX",
         ["proxy", "/", "/a/", "//a", "/a b", "/a?b", "/a#b", "/%61", "/../a", "/é"]),
        ("PROXY_HOST_SUFFIX",
         [".", "..a", "a..b", "-a.b", "a_b", "a/b", "a:80", "1.2.3.4", "a" * 64]),
        ("PROXY_EXPOSED_PORT_POLL_INTERVAL_MS", ["0", "99", "x", "1e4", "9" * 20]),
        ("PROXY_TRUSTED_PROXIES", ["localhost", "10.0.0.1/8", "1.2.3"]),
        ("PROXY_ACCESS_LOG_SAMPLE", ["0", "x"]),
        ("DATABASE_URL", ["postgresql://h/d", "mysql://h/d", "sqlite://", "sqlite://h/x", "x.db"]),
        ("DISABLE_AUTH", ["maybe", "2", "on!"]),
        ("HYPERFLEET_KERNEL_ARGS", ["a\nb", "é", "a" * 2049]),
        ("HYPERFLEET_VMM", ["xen", "qemu2"]),
        ("HYPERFLEET_NETWORK", ["bridge"]),
        ("HYPERFLEET_NETWORK_HOST_PORTS", ["0", "80,80", "80-90", "http", "65536"]),
        ("HYPERFLEET_DNS", ["127.0.0.53", "0.0.0.0", "::1", "dns.example", "1.1.1.1," * 4]),
        ("HYPERFLEET_SUBNET", ["8.8.8.0/24", "172.16.0.1/16", "172.16.0.0/31", "x", "fd00::/64"]),
        ("HYPERFLEET_BOOTS_AT_ONCE", ["0", "-1", "1001"]),
        ("HYPERFLEET_BOOT_DEADLINE_MS", ["0", "999"]),
        ("HYPERFLEET_CGROUPS", ["on", "v2"]),
        ("HYPERFLEET_CGROUP_MEMORY_MIB", ["0", "63"]),
        ("HYPERFLEET_CGROUP_CPU_PERCENT", ["0", "-1"]),
        ("HYPERFLEET_CGROUP_IO_MAX",
         ["rbps", "rbps=0", "rbps=max", "rbps=1 rbps=2", "8:0 rbps=1", "rbps=1,wbps=1", "bps=1"]),
        ("HYPERFLEET_STOP_GRACE_MS", ["-1", "600001"]),
        ("HYPERFLEET_MAX_BODY_BYTES", ["0", "1k"]),
        ("LOG_LEVEL", ["loud"]),
        ("LOG_FORMAT", ["xml"]),
    ],
)  # fmt: skip
def test_wrong_values(name: str, texts: list[str]) -> None:
    for text in texts:
        [line] = complaints(**{name: text})
        assert line.startswith(f"{name}=")
        assert " (environment): must be " in line
        assert len(line) < 400


def test_all_wrong_ones_are_said_at_once() -> None:
    said = complaints(PORT="x", HOST="y", LOG_LEVEL="z")
    assert [line.partition("=")[0] for line in said] == ["PORT", "HOST", "LOG_LEVEL"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_without_auth_only_loopback_is_bound(host: str) -> None:
    [line] = complaints(DISABLE_AUTH="true", HOST=host)
    assert line.startswith(f"DISABLE_AUTH=true: refused with HOST={host}")
    assert of(DISABLE_AUTH="true", HOST="::1").disable_auth


def test_one_port_for_both() -> None:
    assert complaints(PORT="4000") == ["PROXY_PORT=4000: must differ from PORT"]


def test_env_file_and_where_values_come_from(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("# ours\nPORT=3100\nHOST='::1'\nexport LOG_LEVEL=error\nPROXY_PORT=\n")
    loaded = load({"PORT": "3200", "LOG_LEVEL": ""}, env_file)
    assert loaded.settings.port == 3200
    assert loaded.settings.host == "::1"
    assert loaded.settings.log_level == "error"
    assert loaded.settings.proxy_port == 4000
    origins = [loaded.origins[name] for name in ("PORT", "HOST", "LOG_LEVEL", "PROXY_PORT")]
    assert origins == ["environment", ".env", ".env", "default"]


def test_an_env_file_that_cant_be_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff")
    with pytest.raises(SettingsError, match="can't be read"):
        load({}, tmp_path / ".env")


def test_misspelt_names_are_warned_about() -> None:
    loaded = load({"PROXY_PREFX": "/x", "HYPERFLEET_ZZZ": "1", "HYPERFLEET_URL": "u"}, None)
    assert loaded.warnings == (
        "HYPERFLEET_ZZZ (environment) is no setting",
        "PROXY_PREFX (environment) is no setting; did you mean PROXY_PREFIX?",
    )


def test_what_is_shown_can_be_set() -> None:
    loaded: Loaded = load({"HYPERFLEET_IMAGE_DIRS": "/a:/b", "DISABLE_AUTH": "yes"}, None)
    shown = {setting.name: show(loaded.settings, setting.name) for setting in SETTINGS}
    assert msgspec.structs.asdict(load(shown, None).settings) == msgspec.structs.asdict(
        loaded.settings
    )
