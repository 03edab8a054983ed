"""Whom the SDK believes TLS."""

from __future__ import annotations

import ssl

import pytest

from hyperfleet.client.http import trusted


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
