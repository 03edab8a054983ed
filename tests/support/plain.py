"""httpx for plain HTTP: without the certificates, which take 40 ms to load for each client."""

from __future__ import annotations

import ssl
from functools import partial

import httpx

# For `verify=`.
NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, who would speak TLS."""

get = partial(httpx.get, verify=NOBODY)
"""`httpx.get`."""
