"""To and from the world: ONNX files in, ONNX files out, and minigraph's passes as an ONNX optimiser.

`load` reads what nobody here wrote, so it believes nothing: see `files` and `tensors`. How each op is read is in
`reading/`, how each op of ours is written in `writing/`. Needs the extra `onnx`.
"""

from minigraph.onnx.api import load, optimize, optimize_with_trace, save, to_proto

__all__ = ["load", "optimize", "optimize_with_trace", "save", "to_proto"]
