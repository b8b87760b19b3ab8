"""Pictures of graphs: `render` draws one into a file, `to_dot` gives its DOT source, `mimebundle` is for notebooks.

Read in this order: `text` and `style` (words, colours), `lanes`, `repeats`, `collapse` (what is drawn), `sketch`
(boxes and edges), `legend`, `dot` (DOT source), `renderer` (programs that draw), `draw`.
"""

from minigraph.viz.dot import to_dot
from minigraph.viz.draw import mimebundle, render

__all__ = ["mimebundle", "render", "to_dot"]
