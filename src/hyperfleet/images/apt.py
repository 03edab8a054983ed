"""What apt on this host says and fetches; nothing is ever installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec

from hyperfleet.errors import SetupError
from hyperfleet.images.programs import run

# Settings of the host's apt that a machine behind the same network needs too (apt.conf(5)).
_NETWORK_SETTINGS = re.compile(
    r"Acquire::(?:(?:http|https)::(?:Proxy|CAInfo|Verify-Peer)|Check-Date|Check-Valid-Until)\b"
)
_OS_RELEASE = Path("/etc/os-release")
_SOURCES = Path("/etc/apt")


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package as apt would fetch it now."""

    name: str
    version: str
    depends: tuple[str, ...]


class Apt:
    """apt with the host's package lists, or with lists of its own when the host has none."""

    def __init__(self, scratch: Path) -> None:
        """`scratch`: an empty folder for own lists and downloads.

        Raises:
            SetupError: there is no apt here.
        """
        if shutil.which("apt-get") is None:
            raise SetupError("there is no apt here")
        self._scratch = scratch
        # As root apt would download as the user _apt, who can't write here.
        self._options = ["-q", "-o", "APT::Sandbox::User=root"]

    def candidate(self, name: str) -> Package | None:
        """The version of `name` that apt would install, or None when it knows no such package."""
        command = ["apt-cache", *self._options, "show", "--no-all-versions", name]
        try:
            text = run(command).decode(errors="replace")
        except SetupError:
            return None
        fields = dict(re.findall(r"^(Package|Version|Depends): (.+)$", text, re.MULTILINE))
        if "Version" not in fields:
            return None
        # `a (= 1) | b, c`: the first choice of each, without versions.
        depends = (
            re.split(r"[\s(:|]", part.strip())[0] for part in fields.get("Depends", "").split(",")
        )
        return Package(name=name, version=fields["Version"], depends=tuple(filter(None, depends)))

    def update(self) -> None:
        """Fetches the package lists anew, into the scratch folder: the host's stay as they are.

        Raises:
            SetupError: they can't be had.
        """
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._scratch / folder).mkdir(parents=True, exist_ok=True)
        self._options += [
            *("-o", f"Dir::State::Lists={self._scratch}/lists"),
            *("-o", f"Dir::Cache={self._scratch}/cache"),
        ]
        run(["apt-get", *self._options, "update"])

    def download(self, package: Package) -> Path:
        """Fetches a package's file, checked against apt's signed lists.

        Raises:
            SetupError: it can't be had.
        """
        folder = self._scratch / "download"
        folder.mkdir(exist_ok=True)
        run(
            ["apt-get", *self._options, "download", f"{package.name}={package.version}"], cwd=folder
        )
        return next(folder.glob(f"{package.name}_*.deb"))


def codename() -> str | None:
    """The Debian release that this host runs (`bookworm`), or None where it is no Debian."""
    fields = _os_release()
    return fields.get("VERSION_CODENAME") if fields.get("ID") == "debian" else None


def debian_sources(release: str, folder: Path = _SOURCES) -> str | None:
    """The host's own apt sources of this Debian release, as one deb822 text (sources.list(5)).

    Only those: other entries of the host name keys and packages that a machine lacks.
    None where there is none.
    """
    suites = {release, *(f"{release}-{kind}" for kind in ("updates", "security", "backports"))}
    stanzas: list[str] = []
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        stanzas += re.split(r"\n\s*\n", path.read_text(errors="replace"))
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))):
        if path.is_file():
            stanzas += filter(None, map(_from_line, path.read_text(errors="replace").splitlines()))
    kept = [cleaned for stanza in stanzas if (cleaned := _kept(stanza, suites)) is not None]
    return "\n".join(kept) or None


def network_settings() -> list[str]:
    """The host's apt settings about proxies, certificates and dates, as lines of apt.conf(5)."""
    if shutil.which("apt-config") is None:
        return []
    lines = run(["apt-config", "dump"]).decode(errors="replace").splitlines()
    return [line for line in lines if _NETWORK_SETTINGS.match(line) and not line.endswith('"";')]


def _kept(stanza: str, suites: set[str]) -> str | None:
    """A deb822 stanza without comments, if it is enabled, of binary packages, and of `suites`."""
    lines = [line for line in stanza.splitlines() if line.strip() and not line.startswith("#")]
    fields = {
        key.strip().lower(): value.split()
        for key, separator, value in (line.partition(":") for line in lines)
        if separator and not key[:1].isspace()
    }
    if fields.get("enabled") == ["no"] or "deb" not in fields.get("types", []):
        return None
    if not fields.get("suites") or not suites.issuperset(fields["suites"]):
        return None
    return "\n".join(lines) + "\n"


def _from_line(line: str) -> str | None:
    """A line of sources.list as a deb822 stanza; None for what is none, or no binary source."""
    match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>[^#]+)", line)
    if match is None:
        return None
    suite, *components = match["rest"].split()
    stanza = f"Types: deb\nURIs: {match['uri']}\nSuites: {suite}\n"
    if components:
        stanza += f"Components: {' '.join(components)}\n"
    signed_by = re.search(r"signed-by=(\S+)", match["options"] or "")
    return stanza + (f"Signed-By: {signed_by[1]}\n" if signed_by else "")


def _os_release() -> dict[str, str]:
    try:
        text = _OS_RELEASE.read_text()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}
