"""Benchmarks: the same networks in minigraph and in the frameworks that are installed, one process each, in turns.

Read `workloads` (what is timed), `peers` (how others do it), then `turns` (who runs when).
"""
