"""`hyperfleet serve`, with nothing of what other commands stand on: it comes up the sooner."""

from __future__ import annotations

import os

from hyperfleet import garbage
from hyperfleet.cli.complaints import give_up
from hyperfleet.errors import HyperfleetError
from hyperfleet.settings import ENV_FILE, load


def serve() -> int:
    """Runs the control plane by what environment and `.env` say; its exit code.

    Returns:
        0; 2 when settings, files or ports did not let it start, 1 when something else ended it. The
        reason is on stderr.
    """
    with garbage.lasting(tidy=False):
        from hyperfleet.server.backend import Backend  # noqa: PLC0415
        from hyperfleet.server.serve import serve as run  # noqa: PLC0415

    try:
        return run(load(os.environ, ENV_FILE), Backend)
    except HyperfleetError as error:
        return give_up(error)
