"""Damaged ONNX files, made from sound ones by changes of bytes and by changes of the structure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import small_onnx
from small_onnx import onnx

AttributeProto, ModelProto, TensorProto = onnx.AttributeProto, onnx.ModelProto, onnx.TensorProto

# Numbers that are sizes, axes, positions or counts for somebody.
NUMBERS = (0, 1, -1, 2, -2, 3, 7, 64, 127, 255, 65_537, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("inf"), float("-inf"), float("nan"))
NAMES = (
    "",
    "x",
    "y",
    "N",
    "N2",
    "%0",
    "nowhere",
    "a" * 3000,
    "\x00",
    "\x1b[2J",
    "../../etc/passwd",
    '"',
    "⟨∑⟩",
    "input",
    "return y=%0",
    "__class__",
)
OP_TYPES = [*sorted({schema.name for schema in onnx.defs.get_all_schemas()}), "", "eval", "os.system", "minigraph.Add"]
TYPES = sorted(AttributeProto.AttributeType.values())
ELEMENT_TYPES = [*sorted(TensorProto.DataType.values()), 99]

Mutation = Callable[[random.Random, ModelProto], None]


# --- bytes -----------------------------------------------------------------------------------------------------------


def flip_a_bit(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_a_byte(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def insert(rng: random.Random, data: bytearray) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 8, 300)))


def remove(rng: random.Random, data: bytearray) -> None:
    place = rng.randrange(len(data))
    del data[place : place + rng.choice((1, 2, 8, 50))]


def repeat(rng: random.Random, data: bytearray) -> None:
    place = rng.randrange(len(data))
    piece = data[place : place + rng.choice((1, 4, 30, 200))]
    data[place:place] = piece * rng.choice((1, 2, 20))


def widen(rng: random.Random, data: bytearray) -> None:
    """Put a number of ten bytes, the largest there is, in the place of one."""
    place = rng.randrange(len(data))
    data[place : place + 1] = b"\xff" * 9 + b"\x01"


def move(rng: random.Random, data: bytearray) -> None:
    place = rng.randrange(len(data))
    piece = data[place : place + 20]
    del data[place : place + 20]
    to = rng.randrange(len(data) + 1)
    data[to:to] = piece


BYTES = (flip_a_bit, set_a_byte, truncate, insert, remove, repeat, widen, move)


# --- structure -------------------------------------------------------------------------------------------------------


def some(rng: random.Random, items: Sequence[Any]) -> Any:
    """Return one of the items; where there is none the mutation is not one for this model."""
    if not items:
        raise LookupError
    return items[rng.randrange(len(items))]


def some_tensor(rng: random.Random, model: ModelProto) -> TensorProto:
    held = [a.t for node in model.graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    return some(rng, [*model.graph.initializer, *held])


def some_node(rng: random.Random, model: ModelProto) -> onnx.NodeProto:
    return some(rng, model.graph.node)


def some_attribute(rng: random.Random, model: ModelProto) -> AttributeProto:
    return some(rng, [a for node in model.graph.node for a in node.attribute])


def values(model: ModelProto) -> list[str]:
    """Return the names of all values, and one that nothing has."""
    graph = model.graph
    given = [v.name for v in (*graph.input, *graph.initializer)]
    return [*given, *(name for node in graph.node for name in node.output), "nowhere"]


def change_dims(rng: random.Random, model: ModelProto) -> None:
    dims = some_tensor(rng, model).dims
    how = rng.randrange(4)
    if how == 0 or not dims:
        dims.insert(rng.randrange(len(dims) + 1), rng.choice(NUMBERS))
    elif how == 1:
        dims[rng.randrange(len(dims))] = rng.choice(NUMBERS)
    elif how == 2:
        dims.pop()
    else:
        dims.extend([rng.choice((0, 1, 2**40))] * rng.choice((1, 30, 100)))


def change_element_type(rng: random.Random, model: ModelProto) -> None:
    some_tensor(rng, model).data_type = rng.choice(ELEMENT_TYPES)


def change_numbers(rng: random.Random, model: ModelProto) -> None:
    """Change the numbers in a tensor, keeping its size: shapes, axes and repeats are in tensors too."""
    tensor = some_tensor(rng, model)
    kind = {TensorProto.INT64: np.int64, TensorProto.INT32: np.int32, TensorProto.FLOAT: np.float32}.get(
        tensor.data_type
    )
    if kind is None or not tensor.raw_data or len(tensor.raw_data) % np.dtype(kind).itemsize:
        raise LookupError
    numbers = np.frombuffer(tensor.raw_data, kind).copy()
    for _ in range(rng.choice((1, 1, len(numbers)))):
        if kind == np.float32:
            numbers[rng.randrange(len(numbers))] = rng.choice(FLOATS)
        else:
            numbers[rng.randrange(len(numbers))] = np.array(rng.choice(NUMBERS)).astype(kind)
    tensor.raw_data = numbers.tobytes()


def change_storage(rng: random.Random, model: ModelProto) -> None:
    tensor = some_tensor(rng, model)
    how = rng.randrange(6)
    if how == 0:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif how == 1:
        tensor.raw_data += b"\x00" * rng.choice((1, 4, 4096))
    elif how == 2:
        tensor.float_data.extend([1.0] * rng.choice((1, 12, 1000)))
    elif how == 3:
        tensor.segment.end = rng.choice(NUMBERS)
    elif how == 4:
        tensor.ClearField("raw_data")
        tensor.int64_data.extend(rng.choices(NUMBERS, k=rng.choice((1, 2, 6))))
    else:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        location = rng.choice(("/etc/passwd", "../x", "", "x\0", "/dev/zero", "/proc/self/mem", "small_onnx.py"))
        tensor.external_data.add(key="location", value=location)


def delete_a_node(rng: random.Random, model: ModelProto) -> None:
    nodes = model.graph.node
    nodes.remove(some(rng, nodes))


def repeat_a_node(rng: random.Random, model: ModelProto) -> None:
    copy = model.graph.node.add()
    copy.CopyFrom(some(rng, model.graph.node[:-1]))
    if rng.random() < 0.7:
        copy.output[:] = [f"{name}_again" for name in copy.output]


def reorder_nodes(rng: random.Random, model: ModelProto) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def rename_an_op(rng: random.Random, model: ModelProto) -> None:
    some_node(rng, model).op_type = rng.choice(OP_TYPES)


def change_a_domain(rng: random.Random, model: ModelProto) -> None:
    domain = rng.choice(("ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft", "os"))
    some_node(rng, model).domain = domain
    model.opset_import.add(domain=domain, version=1)


def change_operands(rng: random.Random, model: ModelProto) -> None:
    names = some_node(rng, model).input
    how = rng.randrange(5)
    if how == 0 or not names:
        names.append(rng.choice(values(model)))
    elif how == 1:
        names.pop(rng.randrange(len(names)))
    elif how == 2:
        names[rng.randrange(len(names))] = rng.choice(values(model))  # a later one makes a cycle
    elif how == 3:
        names[rng.randrange(len(names))] = ""
    else:
        names.reverse()


def change_results(rng: random.Random, model: ModelProto) -> None:
    names = some_node(rng, model).output
    how = rng.randrange(4)
    if how == 0 or not names:
        names.append(rng.choice(("another", "", *values(model))))
    elif how == 1:
        names.pop()
    elif how == 2:
        names[rng.randrange(len(names))] = rng.choice(values(model))  # a duplicate
    else:
        names.extend(f"result{i}" for i in range(rng.choice((2, 50))))


def rename_a_value(rng: random.Random, model: ModelProto) -> None:
    """Give a value another name wherever it occurs, so that nothing but the name is strange."""
    old, new = some(rng, values(model)), rng.choice(NAMES)
    graph = model.graph
    for named in (*graph.input, *graph.output, *graph.initializer):
        named.name = new if named.name == old else named.name
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def rename_something(rng: random.Random, model: ModelProto) -> None:
    graph = model.graph
    some(rng, [graph, *graph.node, *graph.input, *graph.output, *graph.initializer]).name = rng.choice(NAMES)


def change_a_number(rng: random.Random, model: ModelProto) -> None:
    attribute = some_attribute(rng, model)
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(NUMBERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"SAME_UPPER", b"VALID", b"constant", b"linear", b"\xff\xfe", b"a" * 5000))
    elif attribute.type == AttributeProto.INTS:
        change_a_list(rng, attribute.ints, NUMBERS)
    elif attribute.type == AttributeProto.FLOATS:
        change_a_list(rng, attribute.floats, FLOATS)
    else:
        raise LookupError


def change_a_list(rng: random.Random, numbers: Any, choice: Sequence[Any]) -> None:
    how = rng.randrange(4)
    if how == 0 or not numbers:
        numbers.extend([rng.choice(choice)] * rng.choice((1, 2, 70, 1000)))
    elif how == 1:
        numbers.pop()
    elif how == 2:
        numbers[rng.randrange(len(numbers))] = rng.choice(choice)
    else:
        numbers[:] = [rng.choice(choice) for _ in numbers]


def change_attribute_type(rng: random.Random, model: ModelProto) -> None:
    attribute = some_attribute(rng, model)
    attribute.type = rng.choice(TYPES)
    if rng.random() < 0.7:  # a value of that type, so that it is the op that must refuse it
        put_value(rng, attribute)


def put_value(rng: random.Random, attribute: AttributeProto) -> None:
    kind = AttributeProto.AttributeType.Name(attribute.type)
    name = attribute.name
    fresh = {
        "FLOAT": {"f": rng.choice(FLOATS)}, "INT": {"i": rng.choice(NUMBERS)}, "STRING": {"s": b"text"},
        "FLOATS": {"floats": [rng.choice(FLOATS)] * 2}, "INTS": {"ints": [rng.choice(NUMBERS)] * 2},
        "STRINGS": {"strings": [b"a", b"b"]}, "TENSOR": {"t": {"dims": [1], "data_type": 1, "float_data": [1.0]}},
        "GRAPH": {"g": {"name": "g"}}, "TYPE_PROTO": {"tp": {}},
    }.get(kind, {})  # fmt: skip
    kept = attribute.type
    attribute.Clear()
    attribute.MergeFrom(AttributeProto(name=name, type=kept, **fresh))


def add_an_attribute(rng: random.Random, model: ModelProto) -> None:
    other = some_attribute(rng, model)
    copy = some_node(rng, model).attribute.add()
    copy.CopyFrom(other)
    if rng.random() < 0.6:
        names = ("axis", "axes", "perm", "kernel_shape", "pads", "strides", "group", "to", "value", "keepdims", "mode")
        copy.name = rng.choice(names)


def add_a_known_attribute(rng: random.Random, model: ModelProto) -> None:
    """Give a node an attribute that its op has, with a value nobody expects."""
    node = some_node(rng, model)
    if not onnx.defs.has(node.op_type):
        raise LookupError
    known = onnx.defs.get_schema(node.op_type).attributes
    name = some(rng, sorted(known))
    for place in reversed(range(len(node.attribute))):
        if node.attribute[place].name == name:
            node.attribute.pop(place)
    put_value(rng, node.attribute.add(name=name, type=int(known[name].type.value)))


def remove_an_attribute(rng: random.Random, model: ModelProto) -> None:
    node = some(rng, [n for n in model.graph.node if n.attribute])
    node.attribute.pop(rng.randrange(len(node.attribute)))


def change_versions(rng: random.Random, model: ModelProto) -> None:
    if rng.random() < 0.2:
        model.ir_version = rng.choice((*NUMBERS, 3, 4, 8, 11))
    else:
        some(rng, model.opset_import).version = rng.choice((1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 18, 21, 0, -1, 2**40))


def change_input_type(rng: random.Random, model: ModelProto) -> None:
    declared = some(rng, [*model.graph.input, *model.graph.output]).type
    how = rng.randrange(6)
    if how == 0:
        declared.tensor_type.elem_type = rng.choice(ELEMENT_TYPES)
    elif how == 1:
        declared.tensor_type.ClearField("shape")
    elif how == 2:
        declared.sequence_type.elem_type.tensor_type.elem_type = 1
    elif how == 3:
        declared.tensor_type.shape.dim.add().dim_param = rng.choice(NAMES)
    elif how == 4:
        declared.tensor_type.shape.dim.add().dim_value = rng.choice(NUMBERS)
    else:
        some(rng, declared.tensor_type.shape.dim).dim_value = rng.choice(NUMBERS)


def change_outputs(rng: random.Random, model: ModelProto) -> None:
    how = rng.randrange(3)
    if how == 0:
        model.graph.output.add(name=rng.choice(values(model)))
    elif how == 1:
        some(rng, model.graph.output).name = rng.choice(values(model))
    else:
        del model.graph.output[:]


def make_a_function(rng: random.Random, model: ModelProto) -> None:
    """Make a node the call of a function: of its own name, or of one that calls itself."""
    node = some_node(rng, model)
    node.domain = "mine"
    model.opset_import.add(domain="mine", version=1)
    body = model.functions.add(name=node.op_type, domain="mine", input=["a"], output=["b"])
    body.opset_import.add(domain="", version=17)
    body.opset_import.add(domain="mine", version=1)
    body.node.add(
        op_type=rng.choice((node.op_type, "Relu")), domain=rng.choice(("", "mine")), input=["a"], output=["b"]
    )


def add_a_subgraph(rng: random.Random, model: ModelProto) -> None:
    node = some_node(rng, model)
    node.op_type = rng.choice(("If", "Loop", "Scan", node.op_type))
    for name in ("then_branch", "else_branch", "body"):
        attribute = node.attribute.add(name=name, type=AttributeProto.GRAPH)
        attribute.g.name = "sub"
        attribute.g.node.add(op_type="Relu", input=[rng.choice(values(model))], output=["inner"])
        attribute.g.output.add(name=rng.choice(("inner", "nowhere", *values(model))))


STRUCTURE: tuple[Mutation, ...] = (
    change_dims, change_element_type, change_numbers, change_storage, delete_a_node, repeat_a_node, reorder_nodes,
    rename_an_op, change_a_domain, change_operands, change_results, rename_a_value, rename_something, change_a_number,
    change_attribute_type, add_an_attribute, add_a_known_attribute, remove_an_attribute, change_versions,
    change_input_type, change_outputs, make_a_function, add_a_subgraph,
)  # fmt: skip


def mutated(rng: random.Random, bases: Sequence[bytes]) -> tuple[str, bytes]:
    """Return the names of one to three mutations, and a file that they were done to."""
    data = rng.choice(bases)
    if rng.random() < 0.3:
        damaged, chosen = bytearray(data), rng.choices(BYTES, k=rng.choice((1, 1, 2)))
        for change in chosen:
            if damaged:
                change(rng, damaged)
        return " ".join(change.__name__ for change in chosen), bytes(damaged)
    model, done = ModelProto.FromString(data), []
    wanted = rng.choice((1, 1, 2, 3))
    while len(done) < wanted:
        change = rng.choice(STRUCTURE)
        try:
            change(rng, model)
        except LookupError:  # nothing of the kind in this model
            continue
        done.append(change.__name__)
    return " ".join(done), model.SerializeToString()


def base_files(everything: bool) -> list[bytes]:
    """Return the files that are mutated: the small models, and on request the small ones that come with onnx."""
    small = [*(make() for make in small_onnx.ALL.values()), *small_onnx.operators()]
    files = [model.SerializeToString() for model in small]
    if everything:
        folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
        found = [path.read_bytes() for path in sorted(folder.glob("*/*/model.onnx")) if path.stat().st_size < 20_000]
        files += [data for data in found if ModelProto.FromString(data).graph.node]
    return files
