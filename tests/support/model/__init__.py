"""Random calls, crashes and deaths beside a simple model; what they happen to is a `Subject`."""
