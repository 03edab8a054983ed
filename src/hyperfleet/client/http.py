"""What both clients tell httpx, and what its errors are to their callers. No I/O."""

from __future__ import annotations

import functools
import posixpath
import ssl
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from hyperfleet import __version__
from hyperfleet.client.answers import ApiError, UnreachableError, UntrustedError, refusal
from hyperfleet.client.calls import Call
from hyperfleet.client.values import FileInfo

# Seconds for a connection to be there.
CONNECT = 5.0
# Seconds without a byte, of an answer that has begun.
_STALLED = 300.0
# X509_STORE_CTX_get_error(3): self-signed, and by an issuer that was not found.
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})


def headers_for(key: str | None) -> dict[str, str]:
    """Of every request."""
    headers = {"User-Agent": f"hyperfleet-client/{__version__}"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return headers


def tls(url: str) -> ssl.SSLContext | None:
    """Whom WebSockets' connections believe that the server is at `url`; None over plain HTTP.

    To load the lists of authorities takes longer than to open many a connection, so that is done
    again only when others are named or they were changed.
    """
    return None if _is_plain(url) else _believing_as_of(_lists())


def trusted(url: str) -> ssl.SSLContext:
    """The same as httpx's `verify`, which is the client's own: httpx writes into it.

    Over plain HTTP nobody speaks TLS, and so nobody is believed.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if _is_plain(url) else _believing()


def _is_plain(url: str) -> bool:
    return urlsplit(url).scheme == "http"


def _believing() -> ssl.SSLContext:
    """Of the authorities that this host trusts, and so its other programs.

    Those of SSL_CERT_FILE and SSL_CERT_DIR (SSL_CTX_set_default_verify_paths(3)) are among them,
    and httpx's own list, for a host that has none.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


@functools.lru_cache(maxsize=1)
def _believing_as_of(_state: tuple[tuple[str, int], ...]) -> ssl.SSLContext:
    return _believing()


def _lists() -> tuple[tuple[str, int], ...]:
    """Where the authorities are listed, and when each was last changed."""
    found = ssl.get_default_verify_paths()
    return tuple((place, _changed(place)) for place in (found.cafile, found.capath) if place)


def _changed(place: str) -> int:
    """Nanoseconds; 0: it is gone."""
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


def options(call: Call[Any]) -> dict[str, Any]:
    """A call as `httpx.Client.request` takes it."""
    return {
        "method": call.method,
        "url": call.path,
        "params": list(call.query),
        "json": call.body,
        "timeout": httpx.Timeout(call.patience, connect=CONNECT),
    }


def download(call: Call[Any]) -> dict[str, Any]:
    """A call whose answer may be large, as `httpx.Client.stream` takes it."""
    return {**options(call), "timeout": httpx.Timeout(_STALLED, connect=CONNECT)}


def follow_request(call: Call[Any], **query: str) -> dict[str, Any]:
    """A call whose answer goes on; it may be quiet for however long."""
    timeout = httpx.Timeout(None, connect=CONNECT)
    return {**options(call), "params": [*call.query, *query.items()], "timeout": timeout}


def stat_of(path: str, headers: httpx.Headers) -> FileInfo:
    """What the headers of an answer say of the file at `path`.

    Raises:
        ApiError: they are not Hyperfleet's.
    """
    try:
        length = headers.get("Content-Length")
        kind = headers["X-File-Type"]
        written = headers.get("Last-Modified")
        return FileInfo(
            name=posixpath.basename(path.rstrip("/")),
            type=kind,
            size=int(length) if length is not None and kind == "file" else None,
            mode=headers["X-File-Mode"],
            owner=headers["X-File-Owner"],
            modified=int(parsedate_to_datetime(written).timestamp()) if written else 0,
        )
    except (KeyError, ValueError) as error:
        raise ApiError(
            "INTERNAL_ERROR", f"The answer is not Hyperfleet's: {error}", 200, None
        ) from error


def refused(answer: httpx.Response) -> ApiError:
    """The error that an answer is, its body read."""
    return refusal(answer.status_code, answer.content, answer.headers.get("X-Request-ID"))


def unreachable(url: str, error: Exception) -> UnreachableError:
    """There was no answer, of httpx's or of WebSockets'."""
    if (doubt := _distrust(error)) is not None:
        words = f"{url} shows a certificate that is not trusted here: {doubt.verify_message}"
        if doubt.verify_code in _UNKNOWN_AUTHORITY:
            words += "; set SSL_CERT_FILE to a file with its authority's certificate (PEM)"
        return UntrustedError(words)
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return UnreachableError(f"{url} did not answer in time")
    return UnreachableError(f"No Hyperfleet server answers at {url} ({error})")


def _distrust(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What was wrong with the server's certificate, where that is behind an error."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
