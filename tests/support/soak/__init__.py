"""Machines under load while control plane, data plane and QEMUs are killed; nothing may be lost.

`run` has the rounds, `life` one machine's user, `kills` the signals, `reality` what a host shows of
a home; pure are `checks`, whether that agrees with the record, and `tally`, the sums and their
verdict.
"""
