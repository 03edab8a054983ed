"""Machines by the thousand and one by one: what the control plane costs, beside bounds.

`make bench-fleet` and `make bench-machines` run it. The map:

crowd       thousands of machines of the fake driver behind `hyperfleet serve`
real        QEMU machines beside QEMU's own command, exec beside a round trip
api         a client that costs little: HTTP/1.1 on kept connections, every answer checked
process     CPU time and memory of one process
growth      figures from what was measured at several sizes (pure)
page        the page, a part of it for each command (pure)
"""
