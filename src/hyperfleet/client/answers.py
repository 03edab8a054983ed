"""From an HTTP answer to a value or an error. No I/O."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from hyperfleet.client.calls import Call

T = TypeVar("T")


class ApiError(Exception):
    """The server refused, or failed: its code, its words, the status and the request's id."""

    def __init__(self, code: str, message: str, status: int, request_id: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.request_id = request_id


class UnreachableError(Exception):
    """No answer: nothing listens at the address, it broke off, or it took too long."""


class UntrustedError(UnreachableError):
    """Nothing was asked: over HTTPS, the server shows a certificate that is not trusted here."""


class _Detail(msgspec.Struct):
    code: str
    message: str


class _Refusal(msgspec.Struct):
    error: _Detail


def read(call: Call[T], status: int, content: bytes, request_id: str | None) -> T:
    """What the call was made for.

    Raises:
        ApiError: the server said no, or what answered is no Hyperfleet.
    """
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise refusal(status, content, request_id)
    try:
        return call.decode(content)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ApiError(
            "INTERNAL_ERROR", f"The answer is not what was expected: {error}", status, request_id
        ) from error


def to_json(value: Any) -> Any:
    """A value of `client.values` as plain JSON data."""
    return msgspec.to_builtins(value)


def refusal(status: int, content: bytes, request_id: str | None) -> ApiError:
    """The error that an answer is."""
    try:
        detail = msgspec.json.decode(content, type=_Refusal).error
    except (msgspec.DecodeError, msgspec.ValidationError):
        return ApiError(
            "INTERNAL_ERROR", f"An answer of status {status}, not Hyperfleet's", status, request_id
        )
    return ApiError(detail.code, detail.message, status, request_id)
