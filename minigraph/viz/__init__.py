"""Pictures of graphs, and of what passes do to them: `render` draws one into a file, `to_dot` gives its DOT source,
`mimebundle` is for notebooks.

Read in this order: `text` and `style` (words, colours), `lanes`, `diff` (what changed), `repeats`, `parameters`,
`unchanged`, `view` and `collapse` (what is drawn), `boxes` and `sketch` (boxes and edges), `rows` and `layout` (where
they stand), `legend`, `panel` and `dot` (DOT source), `renderer` (programs that draw), `draw`.
"""

from minigraph.viz.dot import to_dot
from minigraph.viz.draw import mimebundle, render

__all__ = ["mimebundle", "render", "to_dot"]
