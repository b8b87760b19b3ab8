"""Graph → graph. Read `driver`, then `simplify`, then `lower`; `pipelines` says in which order passes run."""

from minigraph.passes.constants import FoldConstants
from minigraph.passes.cse import CommonSubexpressions, DeadCode
from minigraph.passes.driver import Pass, PassError, Pipeline, Rewriting, Rule, at, run, why_not
from minigraph.passes.fold import FOLD_BATCH_NORM
from minigraph.passes.freeze import Freeze
from minigraph.passes.fuse import FUSE, UNFUSE
from minigraph.passes.layout import CHANNELS_LAST
from minigraph.passes.lower import MODES, Lower, lower
from minigraph.passes.merge import MERGE_AFFINES
from minigraph.passes.pads import MERGE_PADS
from minigraph.passes.precision import MixedPrecision, mixed_precision
from minigraph.passes.rematerialise import Rematerialise
from minigraph.passes.selection import Selection
from minigraph.passes.simplify import SIMPLIFY
from minigraph.passes.surroundings import Surroundings
from minigraph.passes.trace import Note, Refusal, Rewrite, Step, Trace
from minigraph.passes.unfold import unfold

__all__ = [
    "CHANNELS_LAST", "FOLD_BATCH_NORM", "FUSE", "MERGE_AFFINES", "MERGE_PADS", "MODES", "SIMPLIFY", "UNFUSE",
    "CommonSubexpressions", "DeadCode", "FoldConstants", "Freeze", "Lower", "MixedPrecision", "Note", "Pass",
    "PassError", "Pipeline", "Refusal", "Rematerialise", "Rewrite", "Rewriting", "Rule", "Selection", "Step",
    "Surroundings", "Trace", "at", "lower", "mixed_precision", "run", "unfold", "why_not",
]  # fmt: skip
