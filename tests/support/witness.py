"""A guest's program by which it can be told that a memory is of one moment, all of it."""

from __future__ import annotations

# One number in each of many places, all alike but for the round that goes on: it says what is not,
# and ends, as any program may that has parts of its memory from another moment.
_PROGRAM = """
BEGIN {
    for (round = 1;; round++) {
        for (place = 0; place < 2000; place++) {
            if (at[place] != round - 1) {
                print place " has " at[place] " in round " round
                exit
            }
            at[place] = round
        }
        print round > "/dev/shm/round"
        close("/dev/shm/round")
    }
}
"""
_GOES_ON = (
    'old=$(cat /dev/shm/round); while [ "$(cat /dev/shm/round)" = "$old" ]'
    " && [ ! -s /dev/shm/wrong ]; do sleep 0.05; done;"
)

BEGIN = (
    "killall awk 2> /dev/null; rm -f /dev/shm/wrong; echo 0 > /dev/shm/round;"
    f" (awk '{_PROGRAM}'; echo ended: $?) > /dev/shm/wrong 2>&1 & {_GOES_ON}"
)
"""For `sh`: has it count, in place of one before."""

SOUND = f"{_GOES_ON} {_GOES_ON} cat /dev/shm/wrong"
"""For `sh`: what it has found wrong, once it has counted on for two rounds; nothing, it must be."""

END = "killall awk; true"
"""For `sh`: it counts no more."""
