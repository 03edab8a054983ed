"""Whom the SDK believes TLS."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from hyperfleet.client.http import tls, trusted


@pytest.mark.parametrize("url", ["http://127.0.0.1:3000", "HTTP://host"])
def test_plain_http_needs_no_certificates_and_believes_nobody(url: str) -> None:
    context = trusted(url)
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509"] == 0


@pytest.mark.parametrize("url", ["https://host", "HTTPS://host:3000/"])
def test_over_https_the_hosts_authorities_are_believed_and_no_one_elses_word(url: str) -> None:
    context = trusted(url)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509_ca"] > 0


def test_streams_load_the_authorities_again_when_they_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tls("http://host") is None
    first = tls("https://host")
    assert first is not None
    assert tls("https://another/") is first
    # What httpx writes into its own is not theirs.
    assert trusted("https://host") is not first
    authorities = tmp_path / "authorities.pem"
    authorities.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    named = tls("https://host")
    assert named is not first
    assert tls("https://host") is named
    later = authorities.stat().st_mtime_ns + 1
    os.utime(authorities, ns=(later, later))
    assert tls("https://host") is not named
    authorities.unlink()
    assert tls("https://host") is not None
