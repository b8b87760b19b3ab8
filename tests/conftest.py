"""What holds in every test. Being here also puts this folder on the import path: test packages share `ops.cases`."""

from __future__ import annotations

import pytest

import minigraph as mg
from minigraph.runtime.program import Program

# Larger graphs are left to the tests of the text form: parsing them at every compilation would take too long.
LIMIT = 3000


@pytest.fixture(autouse=True)
def every_graph_reads_back(monkeypatch: pytest.MonkeyPatch):
    """Whatever graph a test compiles prints as text that reads back as the same graph, and prints the same."""
    init = Program.__init__

    def checked(self, graph, *args, **kwargs):
        init(self, graph, *args, **kwargs)
        if len(graph.nodes) <= LIMIT:
            text = str(graph)
            again = mg.parse(text)
            assert str(again) == text
            assert again.same_as(graph)

    monkeypatch.setattr(Program, "__init__", checked)
