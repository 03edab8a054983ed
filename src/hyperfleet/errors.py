"""One tree of errors. Each class has its code; `api` alone turns a code into a status."""

from __future__ import annotations


class HyperfleetError(Exception):
    """Anything that went wrong and that we can put into words for the user."""

    code = "INTERNAL_ERROR"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ValidationError(HyperfleetError):
    """What was asked can't be: the message names the field and what it may be."""

    code = "VALIDATION_ERROR"


class UnauthorizedError(HyperfleetError):
    """No key, or one that is unknown, expired or revoked."""

    code = "UNAUTHORIZED"


class ForbiddenError(HyperfleetError):
    """The key is good, its scopes do not allow this."""

    code = "FORBIDDEN"


class RateLimitedError(HyperfleetError):
    """Too often; it may be asked again in `retry_after` seconds, a whole number."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class HeadTooLargeError(HyperfleetError):
    """The request's head, or the number of its fields, is over the bound."""

    code = "HEAD_TOO_LARGE"


class RequestTimeoutError(HyperfleetError):
    """The request did not arrive whole in time."""

    code = "REQUEST_TIMEOUT"


class NotFoundError(HyperfleetError):
    """There is no such machine, key or page."""

    code = "NOT_FOUND"


class ConflictError(HyperfleetError):
    """Something else has that name."""

    code = "CONFLICT"


class InvalidStateError(HyperfleetError):
    """The machine's state forbids it."""

    code = "INVALID_STATE"


class TooLargeError(HyperfleetError):
    """More than a limit allows."""

    code = "TOO_LARGE"


class CapacityError(HyperfleetError):
    """It could be, but not now; the message says what is short."""

    code = "CAPACITY"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        """`retry_after`: seconds after which it may be tried again, where that can be told."""
        super().__init__(message)
        self.retry_after = retry_after


class RecordError(HyperfleetError):
    """The database is damaged; the message names the file and what brings a backup back."""


class GuestError(HyperfleetError):
    """The guest, its kernel or its process failed."""

    code = "GUEST_ERROR"


class OperationTimeoutError(HyperfleetError):
    """It was not done in time."""

    code = "TIMEOUT"


class SettingsError(HyperfleetError):
    """A setting is wrong; `serve` prints it and exits 2."""

    code = "SETTINGS"


class SetupError(HyperfleetError):
    """A thing that set-up makes is missing or could not be made; says the command that makes it."""

    code = "SETUP"
