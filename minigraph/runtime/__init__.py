"""From graph to program: `plan` lays out memory, `program` compiles and calls, `state` holds variables."""

from minigraph.runtime.interpreter import Interpreter, constant_evaluator, explain_non_finite
from minigraph.runtime.numbers import StateNumbers
from minigraph.runtime.optimize import freeze, optimize, peak_memory, refreeze, reproduce, why_not
from minigraph.runtime.pending import Pending, later
from minigraph.runtime.plan import Plan, make_plan
from minigraph.runtime.profile import Profile
from minigraph.runtime.program import Program, compile, evaluate
from minigraph.runtime.state import State

__all__ = [
    "Interpreter", "Pending", "Plan", "Profile", "Program", "State", "StateNumbers", "compile", "constant_evaluator",
    "evaluate", "explain_non_finite", "freeze", "later", "make_plan", "optimize", "peak_memory", "refreeze",
    "reproduce", "why_not",
]  # fmt: skip
