"""Graph → graph. Read `driver`, then `simplify`, then `lower`; `pipelines` says in which order passes run."""

from minigraph.passes.constants import FoldConstants
from minigraph.passes.cse import CommonSubexpressions, DeadCode
from minigraph.passes.driver import Pass, Rewriting, Rule, run
from minigraph.passes.freeze import Freeze
from minigraph.passes.layout import CHANNELS_LAST
from minigraph.passes.lower import MODES, Lower, lower
from minigraph.passes.simplify import SIMPLIFY
from minigraph.passes.trace import Rewrite, Step, Trace

__all__ = [
    "CHANNELS_LAST", "MODES", "SIMPLIFY", "CommonSubexpressions", "DeadCode", "FoldConstants", "Freeze", "Lower",
    "Pass", "Rewrite", "Rewriting", "Rule", "Step", "Trace", "lower", "run",
]  # fmt: skip
