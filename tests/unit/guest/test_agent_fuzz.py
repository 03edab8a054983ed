"""Sessions with a guest that says whatever comes; for longer: `scripts/fuzz 600 host`."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings

from support import agent_fuzz


@settings(max_examples=300, deadline=None)
@given(agent_fuzz.any_steps)
def test_no_guest_gets_more_out_of_the_host_than_an_error(steps: list[agent_fuzz.Step]) -> None:
    asyncio.run(agent_fuzz.session(steps))
