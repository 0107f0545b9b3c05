"""What operators see of a runner: counts, durations, configurations, last faults. ``--admin`` serves it."""
