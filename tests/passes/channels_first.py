"""Small networks in N,C,H,W throughout, as PyTorch exports them, and how many transposes are left in their programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

import minigraph as mg
from minigraph import layers, ops
from minigraph.ir import Graph, Node, symbol
from minigraph.ir.leaves import Input, Variable
from minigraph.ir.leaves import input as input_
from minigraph.ir.types import TensorType
from minigraph.ops.shape import Transpose
from minigraph.passes.surroundings import Surroundings

FIRST = {"data_format": "channels_first"}
CLASSES = 4


def block(x: Node, filters: int, size: int = 3, strides: int = 1, groups: int = 1) -> Node:
    """Convolution, batch norm, ReLU."""
    x = layers.Conv2D(filters, size, strides, "same", groups=groups, **FIRST)(x)
    return layers.ReLU()(layers.BatchNormalization(axis=1)(x))


def plain(x: Node) -> Node:
    x = layers.MaxPooling2D(2, **FIRST)(block(x, 6))
    return block(ops.avg_pool2d(block(x, 8), 2, layout="NCHW"), 5)


def residual(x: Node) -> Node:
    x = block(x, 6)
    y = layers.BatchNormalization(axis=1)(layers.Conv2D(6, 3, padding="same", **FIRST)(block(x, 6)))
    return block(layers.ReLU()(x + y), 5, strides=2)


def residual_of_input(x: Node) -> Node:
    return x + block(block(x, 6), 3)


def squeezed_by_convolutions(x: Node) -> Node:
    x = block(x, 8)
    s = layers.GlobalAveragePooling2D(keepdims=True, **FIRST)(x)
    s = layers.Conv2D(8, 1, activation="sigmoid", **FIRST)(layers.Conv2D(2, 1, activation="relu", **FIRST)(s))
    return block(x * s, 5)


def squeezed_by_dense_layers(x: Node) -> Node:
    x = block(x, 8)
    s = layers.GlobalAveragePooling2D(**FIRST)(x)
    s = layers.Dense(8, activation="hard_sigmoid")(layers.Dense(2, activation="relu")(s))
    return block(x * ops.reshape(s, (*s.shape, 1, 1)), 5)


def inception(x: Node) -> Node:
    x = block(x, 6)
    pooled = ops.avg_pool2d(x, 3, 1, "same", layout="NCHW")
    return block(ops.concat([block(x, 2, 1), block(block(x, 2, 1), 3), block(pooled, 4, 1)], 1), 5)


def densely_connected(x: Node) -> Node:
    x = block(x, 4)
    for _ in range(3):
        x = ops.concat([x, layers.Conv2D(3, 3, padding="same", **FIRST)(ops.relu(x))], 1)
    return x


def depthwise(x: Node) -> Node:
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, **FIRST)(block(x, 4))
    return layers.SeparableConv2D(5, 3, padding="same", **FIRST)(layers.ReLU()(x))


def shuffled(x: Node) -> Node:
    """Two halves; one goes on as it is, and then the channels are shuffled (Ma et al. 2018)."""
    x = block(x, 8)
    for _ in range(2):
        left, right = ops.split(x, 2, 1)
        x = ops.concat([left, block(right, 4)], 1)
        n, c, h, w = x.shape
        x = ops.transpose(ops.reshape(x, (n, 2, c // 2, h, w)), (0, 2, 1, 3, 4))
        x = ops.reshape(x, (n, c, h, w))
    return block(x, 5)


def pooled(x: Node) -> Node:
    return layers.Dense(CLASSES)(layers.GlobalAveragePooling2D(**FIRST)(block(x, 6)))


def pooled_and_flattened(x: Node) -> Node:
    x = layers.GlobalMaxPooling2D(keepdims=True, **FIRST)(block(x, 6))
    return layers.Dense(CLASSES)(layers.Flatten()(x))


def flattened(x: Node) -> Node:
    x = layers.Flatten()(layers.MaxPooling2D(2, **FIRST)(block(x, 6)))
    return layers.Dense(CLASSES)(layers.Dense(5, activation="relu")(x))


def decoded(x: Node) -> Node:
    """A few numbers become an image again: the reshape makes channels first."""
    x = layers.GlobalAveragePooling2D(**FIRST)(block(x, 4))
    x = layers.Dense(6 * 4 * 4, activation="relu")(x)
    return layers.Conv2DTranspose(5, 2, 2, **FIRST)(ops.reshape(x, (x.shape[0], 6, 4, 4)))


def resized_to_nearest(x: Node) -> Node:
    x = block(x, 4)
    for axis in (2, 3):
        x = ops.gather(x, ops.constant(np.arange(16) // 2), axis)
    return block(x, 5)


def resized_by_matrices(x: Node) -> Node:
    x = block(x, 4)
    matrix = ops.constant(np.random.default_rng(0).uniform(size=(16, 8)))
    return block(ops.matmul(matrix, ops.matmul(x, ops.transpose(matrix))), 5)


def resized_by_convolution(x: Node) -> Node:
    skip = block(x, 4)
    x = block(layers.MaxPooling2D(2, **FIRST)(skip), 6)
    x = layers.Conv2DTranspose(4, 2, 2, **FIRST)(x)
    return block(ops.concat([skip, x], 1), 5)


def resized_by_pixel_shuffle(x: Node) -> Node:
    x = layers.Conv2D(16, 3, padding="same", **FIRST)(block(x, 4))
    n, _, h, w = x.shape
    x = ops.transpose(ops.reshape(x, (n, 4, 2, 2, h, w)), (0, 1, 4, 2, 5, 3))
    return block(ops.reshape(x, (n, 4, h * 2, w * 2)), 5)


def attending_in_space(x: Node) -> Node:
    x = block(x, 6)
    seen = ops.concat([ops.mean(x, 1, keepdims=True), ops.max(x, 1, keepdims=True)], 1)
    return x * layers.Conv2D(1, 3, padding="same", activation="sigmoid", **FIRST)(seen)


def normalised_over_channels(x: Node) -> Node:
    """Layer norm at each pixel, between two permutations (ConvNeXt), and a scale for each channel."""
    x = block(x, 6)
    y = layers.DepthwiseConv2D(3, padding="same", **FIRST)(x)
    y = ops.transpose(y, (0, 2, 3, 1))
    y = (y - ops.mean(y, -1, keepdims=True)) * ops.rsqrt(ops.mean(y * y, -1, keepdims=True) + 1.0)
    y = layers.Dense(6)(layers.Dense(12, activation="gelu")(y))
    return x + ops.transpose(y, (0, 3, 1, 2))


def normalised_over_neighbours(x: Node) -> Node:
    """Local response normalisation (Krizhevsky et al. 2012): a mean over neighbouring channels is a pool."""
    x = block(x, 6)
    column = ops.reshape(x * x, (x.shape[0], 1, 6, 64))
    mean = ops.avg_pool2d(column, (3, 1), 1, ((1, 1), (0, 0)), layout="NCHW", count_padding=True)
    return block(x * ops.rsqrt(1.0 + ops.reshape(mean, x.shape)), 5)


def normalised_in_groups(x: Node) -> Node:
    x = ops.reshape(block(x, 6), (x.shape[0], 2, 3, 8, 8))
    centred = x - ops.mean(x, (2, 3, 4), keepdims=True)
    y = centred * ops.rsqrt(ops.mean(centred * centred, (2, 3, 4), keepdims=True) + 1.0)
    return block(ops.reshape(y, (x.shape[0], 6, 8, 8)), 5)


def padded_and_cropped(x: Node) -> Node:
    x = layers.ZeroPadding2D(((1, 2), (0, 3)), **FIRST)(block(x, 6))
    return block(x[:, ::2, 1:-1, ::-1], 5)


def classified_at_each_pixel(x: Node) -> Node:
    return ops.softmax(layers.Conv2D(CLASSES, 1, **FIRST)(block(x, 6)), 1)


def dropped_out(x: Node) -> Node:
    return block(layers.Dropout(0.5)(block(x, 6)), 5)


NETWORKS: dict[str, Callable[[Node], Node]] = {
    f.__name__: f
    for f in (
        plain, residual, residual_of_input, squeezed_by_convolutions, squeezed_by_dense_layers, inception,
        densely_connected, depthwise, shuffled, pooled, pooled_and_flattened, flattened, decoded, resized_to_nearest,
        resized_by_matrices, resized_by_convolution, resized_by_pixel_shuffle, attending_in_space,
        normalised_over_channels, normalised_over_neighbours, normalised_in_groups,
        padded_and_cropped, classified_at_each_pixel, dropped_out,
    )
}  # fmt: skip


def lowered(network: Callable[[Node], Node], mode: str, batch: int | str = 6, imported: bool = False) -> Graph:
    """Return a network, lowered; `imported`: with kernels that are O,I,H,W variables."""
    with mg.fresh_names():
        x = input_((symbol(batch) if isinstance(batch, str) else batch, 3, 8, 8), "float64", "x")
        graph = mg.lower(Graph({"y": network(x)}, inputs=[x]), mode)
    return _as_imported(graph) if imported else graph


def _as_imported(graph: Graph) -> Graph:
    """Return the graph with each variable that is only transposed as a variable in that order: kernels O,I,H,W."""

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if isinstance(node.op, Transpose) and isinstance(inputs[0].op, Variable):
            return Node(Variable(f"{inputs[0].label}'", TensorType(node.shape, node.dtype)))
        return node.with_inputs(inputs) if inputs != node.inputs else node

    return graph.rebuild(make)


def inference(name: str, batch: int | str = 6, imported: bool = False) -> Graph:
    """Return one of the networks, lowered for inference."""
    return lowered(NETWORKS[name], "inference", batch, imported)


def training(name: str, batch: int | str = 6, imported: bool = False) -> Graph:
    """Return a step of gradient descent for one of the networks."""
    return descent(lowered(NETWORKS[name], "training", batch, imported))


def descent(graph: Graph) -> Graph:
    """Return a step of gradient descent with momentum for a graph that is lowered for training."""
    y = graph.outputs["y"]
    loss = ops.mean(y * y * y)
    trained = [v for v in graph.variables if v.op.trainable]
    updates = dict(graph.updates)
    for v, g in zip(trained, mg.gradients(loss, trained), strict=True):
        velocity = mg.variable(v.shape, name=f"{v.label}/velocity", init=0.0, dtype=v.dtype, trainable=False)
        updates[velocity] = 0.9 * velocity + g
        updates[v] = v - 0.1 * updates[velocity]
    return Graph({"loss": loss}, updates, graph.inputs)


def left(graph: Graph) -> Counter[str]:
    """Count the transposes that are left: of inputs, into outputs, of parameters, into updates, and those inside.

    "Into updates" are those of gradients of kernels. A mask of random numbers is inside, though no data is in it.
    """
    around = Surroundings(graph)
    return Counter(_kind(graph, around, node) for node in graph.nodes if isinstance(node.op, Transpose))


def _kind(graph: Graph, around: Surroundings, node: Node) -> str:
    if around.is_parameter(node):
        ops_in_it = {n.op.name for n in Graph({"y": node}).nodes}
        return "inside" if "random_uniform" in ops_in_it else "variables" if "variable" in ops_in_it else "constants"
    if isinstance(node.inputs[0].op, Input):
        return "inputs"
    if not graph.users[node]:
        return "outputs" if node in graph.outputs.values() else "updates"
    return "updates" if _of_a_kernel(graph, node) else "inside"


def _of_a_kernel(graph: Graph, node: Node) -> bool:
    """Tell whether a value has as many elements as one of the variables, and goes into nothing but updates."""
    found, stack = {node}, [node]
    while stack:
        fresh = [reader for reader in graph.users[stack.pop()] if reader not in found]
        found.update(fresh)
        stack += fresh
    sizes = {v.tensor_type.size for v in graph.variables}
    small = all(isinstance(n.type, TensorType) and n.type.size in sizes for n in found)
    return small and not found & set(graph.outputs.values())
