"""A program in a machine whose going on can be seen from outside: of tests that save its memory."""

from __future__ import annotations

# Counts in memory alone; and holds a file that has no name any more.
_COUNT = """
cat > /count.sh <<'END'
exec 3> /nameless; rm /nameless; echo kept >&3
i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done
END
sh /count.sh > /dev/null 2>&1 &
echo $! > /dev/shm/pid
while [ ! -e /dev/shm/count ]; do sleep 0.05; done
"""
# It still counts, and its file is whole: says `kept`.
COUNTS = (
    "a=$(cat /dev/shm/count); while [ $(cat /dev/shm/count) = $a ]; do sleep 0.05; done;"
    " cat /proc/$(cat /dev/shm/pid)/fd/3"
)


def counting(page: str) -> str:
    """A script that has it run, and a web server on port 80 whose page says so."""
    return f"{_COUNT}echo {page} > /index.html; httpd -p 80 -h /\n"
