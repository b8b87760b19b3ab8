"""From graph to program: `plan` lays out memory, `program` compiles and calls, `state` holds variables."""

from minigraph.runtime.interpreter import Interpreter, constant_evaluator, explain_non_finite
from minigraph.runtime.plan import Plan, make_plan
from minigraph.runtime.profile import Profile
from minigraph.runtime.program import Program, compile, evaluate, optimize
from minigraph.runtime.state import State

__all__ = [
    "Interpreter", "Plan", "Profile", "Program", "State", "compile", "constant_evaluator", "evaluate",
    "explain_non_finite", "make_plan", "optimize",
]  # fmt: skip
