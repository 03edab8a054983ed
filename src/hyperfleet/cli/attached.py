"""A process in a machine that this command stands for: its output comes here, signals go there."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import threading
from collections.abc import Callable, Iterator

from hyperfleet import client as sdk

IN, OUT, ERR = 0, 1, 2
# What a process in a machine is told in our place, where no terminal turns keys into them.
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def show(output: sdk.Output) -> None:
    """Writes a piece of its output where it belongs, as it is."""
    descriptor = ERR if output.is_error else OUT
    unwritten = memoryview(output.data)
    while unwritten:
        unwritten = unwritten[os.write(descriptor, unwritten) :]


def terminal_size() -> tuple[int, int]:
    """Rows and columns of the terminal that we are at."""
    size = shutil.get_terminal_size()
    return max(1, size.lines), max(1, size.columns)


@contextlib.contextmanager
def forwarding(
    stream: sdk.ProcessStream,
    *,
    terminal: bool = False,
    stays: bool = False,
    hears: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Signals, and with `terminal` sizes, go on to the process while the block lasts.

    With `stays` HUP, which says that whoever sits here has gone, is not for the process. `hears` is
    told the name of each signal as well; it may raise, to end the block.
    """
    # By a thread, since a handler must not wait.
    orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def carry() -> None:
        while (order := orders.get()) is not None:
            order()

    def forward(number: int, _: object) -> None:
        name = signal.Signals(number).name.removeprefix("SIG")
        orders.put(lambda: stream.signal(name))
        if hears is not None:
            hears(name)

    def resize(_number: int, _: object) -> None:
        orders.put(lambda: stream.resize(*terminal_size()))

    handlers: dict[signal.Signals, Callable[[int, object], None]]
    handlers = dict.fromkeys(_FORWARDED, forward)
    if stays:
        del handlers[signal.SIGHUP]
    if terminal:
        handlers[signal.SIGWINCH] = resize
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    carrier = threading.Thread(target=carry, daemon=True)
    carrier.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        orders.put(None)
        carrier.join()
