"""A gradient is a node like any other: define a function, differentiate it twice, read the graph, evaluate it."""

import numpy as np

import minigraph as mg

# Calling an op makes a node. Nothing is computed: `y` stands for a number that nobody knows yet.
x = mg.variable((3,), name="x")
y = mg.ops.sum(x * mg.ops.sin(x))

# `gradients` walks the graph backwards and returns nodes, so it can be applied to its own result.
(slope,) = mg.gradients(y, [x])
(curvature,) = mg.gradients(mg.ops.sum(slope), [x])

graph = mg.Graph({"y": y, "slope": slope})
print("The function and its gradient, as one graph:")
print(graph)

# A node knows where it comes from. One that computes an adjoint also knows whose.
forward = {node.id: node for node in graph.nodes}
for node in graph.nodes:
    if node.origin.gradient_of is not None:
        print(f"{node!r:<32} helps to differentiate {forward[node.origin.gradient_of]!r}")

# Values of variables live in a state, outside the graph.
state = mg.State({"x": np.array([0.0, 1.0, 2.0], "float32")})
value, first, second = mg.evaluate([y, slope, curvature], state)

t = state["x"]
np.testing.assert_allclose(first, np.sin(t) + t * np.cos(t), rtol=1e-5)
np.testing.assert_allclose(second, 2 * np.cos(t) - t * np.sin(t), rtol=1e-5)
print("x          ", t)
print("y          ", value)
print("slope      ", first)
print("curvature  ", second)
print("slope and curvature agree with the formulas")
