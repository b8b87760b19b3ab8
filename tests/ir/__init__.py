"""Tests of the IR: types, nodes, graphs, text, verifier; and `random_graphs`, which the others share."""
