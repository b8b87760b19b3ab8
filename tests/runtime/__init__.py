"""Tests of the runtime: plans, programs, state, profiles, and graphs that are very deep."""
