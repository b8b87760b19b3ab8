"""MINIGRAPH_DEBUG: one program with all of it on, and a word that means nothing."""

from __future__ import annotations

import numpy as np
import pytest

import minigraph as mg
from minigraph.errors import ArgumentError, GraphError
from minigraph.models.small import plain_network
from minigraph.runtime import plan as planning


def step() -> dict[str, float]:
    model = plain_network((8, 8, 1), (4, "pool", 8))
    model.compile("sgd", mg.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model.train_on_batch(np.ones((4, 8, 8, 1), np.float32), np.arange(4))


def test_all_of_it(monkeypatch, capsys):
    silent = step()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("MINIGRAPH_DEBUG", "passes,plan,verify,time")
    assert step() == silent
    said = capsys.readouterr().err
    assert "simplify" in said and "kernel calls, peak" in said and " kernels: " in said and " ms" in said


def test_verify_finds_a_plan_that_overlaps(monkeypatch):
    def everything_at_the_same_place(slots):
        return [0] * len(slots), max(slot.nbytes for slot in slots)

    monkeypatch.setattr(planning, "_best_fit", everything_at_the_same_place)
    monkeypatch.setenv("MINIGRAPH_DEBUG", "verify")
    with pytest.raises(GraphError, match="overlap"):
        step()


def test_a_word_that_means_nothing(monkeypatch):
    monkeypatch.setenv("MINIGRAPH_DEBUG", "plan,everything")
    with pytest.raises(ArgumentError, match="everything"):
        step()
