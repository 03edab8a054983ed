"""The Alpine root disk: Alpine's own minirootfs, pinned, and nothing else under that name."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from hyperfleet.errors import SetupError
from hyperfleet.images import flavour
from hyperfleet.images.disk import MIB, make_disk
from hyperfleet.images.workshop import Inputs, Workshop, digest

VERSION = "3.23.2"
SHA256 = "b50bf42e519420ca2be48dd0efa22aa087c708d0602b67d413406533bef9dab5"

_BRANCH = VERSION.rpartition(".")[0]
TARBALL = f"alpine-minirootfs-{VERSION}-x86_64.tar.gz"
URL = f"https://dl-cdn.alpinelinux.org/alpine/v{_BRANCH}/releases/x86_64/{TARBALL}"
# The file has about 4 MB; what answers with more is not it.
_LARGEST = 32 * MIB
_SIZE = 1024 * MIB
_VERSION = "3"
# Alpine's nginx answers 404 to everything until a site is written. apk never overwrites a file
# under /etc: once nginx is installed, it serves what lies in its folder of documents.
_NGINX_SITE = """\
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    root /var/www/localhost/htdocs;
}
"""


class Alpine:
    """Alpine from its tarball, downloaded or given; its SHA-256 is checked either way."""

    name = "alpine"
    about = "a few seconds"

    def __init__(
        self,
        tarball: Path | None = None,
        *,
        timeout: float = 30.0,
        url: str = URL,
        sha256: str = SHA256,
    ) -> None:
        """`tarball`: the minirootfs that the user has; None downloads it.

        `timeout`: the longest silence of the server that is waited for, seconds.
        """
        self._tarball = tarball
        self._timeout = timeout
        self._url = url
        self._sha256 = sha256

    @property
    def inputs(self) -> Inputs:
        """Its recipe."""
        return {"minirootfs": self._sha256, "made by": _VERSION}

    def make(self, workshop: Workshop, disk: Path) -> None:
        """Writes the disk; see `Flavour`."""
        work = workshop.folder("alpine")
        tarball = self._tarball or self._download(work / TARBALL)
        try:
            found = digest(tarball)
        except OSError as error:
            raise SetupError(f"{tarball} can't be read: {error.strerror}") from error
        if found != self._sha256:
            raise SetupError(
                f"{tarball.name} is not Alpine's minirootfs {VERSION}:"
                f" its SHA-256 is {found}, not {self._sha256}"
            )
        tree = work / "files"
        tree.mkdir()
        flavour.first_files(tree)
        site = tree / "etc/nginx/http.d/default.conf"
        site.parent.mkdir(parents=True)
        site.write_text(_NGINX_SITE)
        make_disk(disk, work=work, size=_SIZE, label="alpine", overlay=tree, base=tarball)

    def _download(self, target: Path) -> Path:
        try:
            with (
                urllib.request.urlopen(self._url, timeout=self._timeout) as answer,  # noqa: S310
                target.open("wb") as file,
            ):
                while chunk := answer.read(1 << 16):
                    file.write(chunk)
                    if file.tell() > _LARGEST:
                        raise SetupError(f"{self._url} is not the file that is meant: too large")
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise SetupError(
                f"Alpine can't be downloaded here ({reason}); with {TARBALL} from elsewhere:"
                " `hyperfleet setup --flavour alpine --alpine-tarball PATH`"
            ) from error
        return target
