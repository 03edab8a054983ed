"""What a request means in each state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfleet.fleet import agenda
from hyperfleet.fleet.agenda import Act, Arrival, Want
from hyperfleet.lifecycle import AT_REST, TRANSITIONS, Status

ASKED = (
    Want.START,
    Want.STOP,
    Want.RESTART,
    Want.DELETE,
    Want.PAUSE,
    Want.RESUME,
    Want.SLEEP,
    Want.SNAPSHOT,
    Want.RESTORE,
    Want.CHANGE,
)


@pytest.mark.parametrize("status", sorted(AT_REST))
def test_a_machine_at_rest_boots_when_started_and_goes_when_deleted(status: Status) -> None:
    assert agenda.on_turn(status, Want.START, force=False) == (Act.PREPARE, Act.BOOT)
    assert agenda.on_turn(status, Want.DELETE, force=False) == (Act.REMOVE,)


def test_what_is_so_already_needs_nothing() -> None:
    assert agenda.on_turn(Status.RUNNING, Want.START, force=False) == ()
    assert agenda.on_turn(Status.STOPPED, Want.STOP, force=False) == ()


@pytest.mark.parametrize("status", [Status.PENDING, Status.FAILED])
def test_nothing_to_stop_is_refused_in_words(status: Status) -> None:
    plan = agenda.on_turn(status, Want.STOP, force=False)
    assert isinstance(plan, str)
    sentence = agenda.refusal(Want.STOP, "web", status, plan)
    assert sentence.startswith(f"machine 'web' is {status} and can't be stopped: ")


@pytest.mark.parametrize("status", sorted(set(Status) - AT_REST))
def test_delete_asks_for_force_unless_at_rest(status: Status) -> None:
    assert isinstance(agenda.on_turn(status, Want.DELETE, force=False), str)
    assert agenda.on_turn(status, Want.DELETE, force=True) == (Act.HALT, Act.REMOVE)


@pytest.mark.parametrize("status", [Status.STARTING, Status.STOPPING])
def test_delete_is_refused_at_once_while_things_change(status: Status) -> None:
    assert agenda.on_arrival(status, Want.START, [], Want.DELETE, force=False) is Arrival.REFUSE
    assert agenda.on_arrival(status, Want.START, [], Want.DELETE, force=True) is Arrival.WAIT


def test_the_same_wish_again_shares_the_answer() -> None:
    join = agenda.on_arrival(Status.STARTING, Want.START, [Want.SIGHT], Want.START, force=False)
    assert join is Arrival.JOIN
    # A stop stands between: this start is for after it.
    wait = agenda.on_arrival(Status.STARTING, Want.START, [Want.STOP], Want.START, force=False)
    assert wait is Arrival.WAIT


@pytest.mark.parametrize("status", Status)
def test_a_restart_boots_from_every_state_and_stops_what_may_run(status: Status) -> None:
    # What runs and could not start again is not stopped; what was broken off is, at any rate.
    check = (Act.CHECK,) if status in (Status.RUNNING, Status.PAUSED, Status.SLEEPING) else ()
    halt = () if status in AT_REST else (Act.HALT_TO_START,)
    whole = (*check, *halt, Act.PREPARE, Act.BOOT)
    assert agenda.on_turn(status, Want.RESTART, force=False) == whole


def test_restarts_share_one_and_no_other_wish() -> None:
    def arrives(under_way: Want | None, *queued: Want) -> Arrival:
        return agenda.on_arrival(Status.RUNNING, under_way, queued, Want.RESTART, force=False)

    assert arrives(Want.RESTART) is Arrival.JOIN
    assert arrives(None, Want.RESTART, Want.CHANGE, Want.SIGHT) is Arrival.JOIN
    assert arrives(Want.RESTART, Want.STOP) is Arrival.WAIT
    assert arrives(Want.START) is Arrival.WAIT


@pytest.mark.parametrize("status", Status)
def test_a_change_is_written_down_in_every_state_and_followed_where_something_runs(
    status: Status,
) -> None:
    follows = (Act.FOLLOW,) if status in (Status.RUNNING, Status.PAUSED) else ()
    assert agenda.on_turn(status, Want.CHANGE, force=False) == (Act.AMEND, *follows)


@pytest.mark.parametrize("status", Status)
def test_each_change_is_one_of_its_own(status: Status) -> None:
    for under_way in (None, Want.CHANGE, Want.START, Want.STOP):
        arrival = agenda.on_arrival(status, under_way, [Want.CHANGE], Want.CHANGE, force=False)
        assert arrival is Arrival.WAIT


def test_a_stop_or_restart_that_is_next_ends_the_boot() -> None:
    assert agenda.interrupts(Want.START, [Want.RESTART])
    assert agenda.interrupts(Want.RESTART, [Want.STOP])
    # A change waits for the boot, and keeps nobody from ending it.
    assert not agenda.interrupts(Want.START, [Want.CHANGE])
    assert agenda.interrupts(Want.START, [Want.CHANGE, Want.STOP])
    assert agenda.interrupts(Want.START, [Want.STOP])
    assert agenda.interrupts(Want.COMPLETE, [Want.STOP, Want.START])
    assert not agenda.interrupts(Want.START, [Want.DELETE, Want.STOP])
    assert not agenda.interrupts(Want.STOP, [Want.STOP])
    assert not agenda.interrupts(Want.START, [])


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.RUNNING, Status.PAUSED}))
def test_only_what_has_a_guest_is_paused_and_resumed(status: Status) -> None:
    for want in (Want.PAUSE, Want.RESUME):
        plan = agenda.on_turn(status, want, force=False)
        asleep = status is Status.SLEEPING and want is Want.RESUME
        assert plan == ("start it instead" if asleep else "start it first")


@pytest.mark.parametrize("status", Status)
def test_what_has_a_guest_sleeps_and_a_start_wakes_it(status: Status) -> None:
    plan = agenda.on_turn(status, Want.SLEEP, force=False)
    if status in (Status.RUNNING, Status.PAUSED):
        assert plan == (Act.SLEEP,)
    else:
        assert plan == (() if status is Status.SLEEPING else "start it first")
    # By itself only what runs: somebody has paused a paused one.
    dozes = agenda.on_turn(status, Want.DOZE, force=False)
    assert dozes == ((Act.SLEEP,) if status is Status.RUNNING else ())
    assert agenda.on_turn(Status.SLEEPING, Want.START, force=False) == (Act.PREPARE, Act.BOOT)


@pytest.mark.parametrize("status", Status)
def test_a_machine_is_kept_with_what_it_has_and_put_back_from_every_state(status: Status) -> None:
    saves = agenda.on_turn(status, Want.SNAPSHOT, force=False)
    nothing = (Status.PENDING, Status.STARTING, Status.STOPPING)
    assert isinstance(saves, str) if status in nothing else saves == (Act.SAVE,)
    # What can't be fetched leaves the machine as it is.
    cut = () if status in AT_REST else (Act.CUT,)
    whole = (Act.FETCH, *cut, Act.PUT_BACK)
    assert agenda.on_turn(status, Want.RESTORE, force=False) == whole


def test_each_snapshot_and_each_restore_is_one_of_its_own() -> None:
    for want in (Want.SNAPSHOT, Want.RESTORE):
        arrival = agenda.on_arrival(Status.RUNNING, want, [want], want, force=False)
        assert arrival is Arrival.WAIT
    # A restore is another life, a snapshot is not.
    joined = agenda.on_arrival(
        Status.STARTING, Want.START, [Want.SNAPSHOT], Want.START, force=False
    )
    assert joined is Arrival.JOIN
    after = agenda.on_arrival(Status.STARTING, Want.START, [Want.RESTORE], Want.START, force=False)
    assert after is Arrival.WAIT
    # A boot is waited for: nobody wants it ended.
    assert not agenda.interrupts(Want.START, [Want.RESTORE])


@pytest.mark.parametrize("status", [Status.STOPPED, Status.FAILED])
def test_a_stop_calls_off_a_start_that_is_written_down(status: Status) -> None:
    assert agenda.on_turn(status, Want.STOP, force=False, waiting=True) == (Act.STAND_DOWN,)
    again = (Act.PREPARE_AGAIN, Act.BOOT)
    assert agenda.on_turn(status, Want.REVIVE, force=False, waiting=True) == again
    assert agenda.on_turn(status, Want.REVIVE, force=False, waiting=False) == ()


def test_what_is_told_once_is_written_down_whatever_the_machine_does_meanwhile() -> None:
    for status in (Status.RUNNING, Status.PAUSED, Status.SLEEPING):
        assert agenda.on_turn(status, Want.COMMAND, force=False) == (Act.TELL,)


def test_a_restart_that_a_crash_cut_off_is_completed() -> None:
    plan = agenda.on_turn(Status.STOPPING, Want.COMPLETE, force=False, waiting=True)
    assert plan == (Act.HALT_TO_START,)
    plan = agenda.on_turn(Status.STOPPING, Want.COMPLETE, force=False, waiting=False)
    assert plan == (Act.HALT,)


# Where each act leads, as `acts` does it.
LEADS = {
    Act.CHECK: (),
    Act.PREPARE: (Status.STARTING,),
    Act.BOOT: (Status.RUNNING,),
    Act.COME_UP: (Status.RUNNING,),
    Act.HALT: (Status.STOPPING, Status.STOPPED),
    Act.HALT_TO_START: (Status.STOPPING, Status.STOPPED),
    Act.PREPARE_AGAIN: (Status.STARTING,),
    Act.STAND_DOWN: (Status.STOPPED,),
    Act.SETTLE: (Status.FAILED,),
    Act.PAUSE: (Status.PAUSED,),
    Act.GO_ON: (Status.RUNNING,),
    Act.SLEEP: (Status.SLEEPING,),
    Act.SAVE: (),
    Act.FETCH: (),
    Act.CUT: (Status.STOPPING, Status.STOPPED),
    # Or stopped, which the others lead to as well.
    Act.PUT_BACK: (Status.SLEEPING,),
    Act.AMEND: (),
    Act.FOLLOW: (),
    Act.NOTE: (),
    Act.BLAME: (),
    Act.TELL: (),
    Act.STALL: (),
    Act.REMOVE: (),
}


@given(
    status=st.sampled_from(Status),
    wants=st.lists(st.tuples(st.sampled_from(Want), st.booleans(), st.booleans())),
)
def test_no_order_of_requests_breaks_the_table_of_states(
    status: Status, wants: list[tuple[Want, bool, bool]]
) -> None:
    for want, force, due in wants:
        # A pending machine was never started, so nothing starts it again.
        waiting = due and status is not Status.PENDING
        plan = agenda.on_turn(status, want, force=force, waiting=waiting)
        if isinstance(plan, str):
            assert want in ASKED
            continue
        for act in plan:
            if act is Act.REMOVE:
                assert status in AT_REST
                return
            for step in LEADS[act]:
                assert step is status or step in TRANSITIONS[status]
                status = step
        if want in (Want.START, Want.RESTART):
            assert status is Status.RUNNING
        if want is Want.STOP:
            assert status is Status.STOPPED
        if want is Want.PAUSE:
            assert status is Status.PAUSED
        if want in (Want.SLEEP, Want.RESTORE):
            assert status is Status.SLEEPING
