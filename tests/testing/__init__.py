"""Tests of what `minigraph.testing` offers to those who write ops and passes."""
