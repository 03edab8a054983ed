"""A page of the browser, and everything that went wrong in it."""

from __future__ import annotations

from playwright.sync_api import ConsoleMessage, Page, Request, Response


class Watched:
    """Takes down what the browser's own log has of `page` from now on."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._statuses: dict[str, int] = {}
        self.wrong: list[str] = []
        page.on("response", self._response)
        page.on("requestfailed", self._failed)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"uncaught: {error}"))

    def status(self, address: str) -> int | None:
        """The status of the last answer for an address; None if it was not asked for."""
        return self._statuses.get(address)

    def _response(self, response: Response) -> None:
        self._statuses[response.url] = response.status
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")

    def _failed(self, request: Request) -> None:
        # What the page itself broke off: it was left, or its script had read enough. Where a server
        # or a proxy breaks off, the browser has another word for it.
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"{request.failure}: {request.url}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")
