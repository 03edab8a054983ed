"""The proxy beside its peers: the same job, the same run, every answer checked.

`python -m benchmarks` runs it (`make bench` makes what it needs first). The map:

workloads   what is asked of each proxy, and what is wanted of ours
peers       who is measured, and how each is told to do the same job (configs/)
processes   one proxy as processes of the system: started, pinned, its CPU time and memory
load        bench-load, the two ends around the proxy (crates/bench-load)
job         whether a proxy does the job at all, before anything is measured
rounds      who is measured when; sample is one measurement
summary     many samples to one line: medians, spread, ratios (pure); sureness is what chance has
            to do with them (pure), progress what a run still takes
parts       what is measured of ours alone, against bounds: figures (pure) instead of ratios
            large_table (with control, its control plane, and instructions), two_workers,
            access_log, system_calls
limits      what a row that is not met is made of: system_calls and profile; limit tells it (pure)
report      lines and figures as Markdown (pure)
picture     the lines as SVG
host        what it was measured on
"""
