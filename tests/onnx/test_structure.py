"""The structure of ONNX models: every violation is named, with its node and value; depth and size are no limit."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
import small_onnx
from small_onnx import onnx

from minigraph.errors import ModelFormatError
from minigraph.onnx import verifier
from minigraph.onnx.files import read_model

Attribute = onnx.AttributeProto


def refused(model, message: str, place: str = "the given model") -> ModelFormatError:
    """Check that a model is refused with a message, at a place; in memory and from bytes."""
    with pytest.raises(ModelFormatError, match=re.escape(message)) as caught:
        read_model(model)
    assert caught.value.where == place
    with pytest.raises(ModelFormatError, match=re.escape(message)):
        read_model(model.SerializeToString())
    return caught.value


def change(edit: Callable, model: Callable = small_onnx.dense):
    found = model()
    edit(found)
    return found


def node(model, place: int = 0):
    return model.graph.node[place]


def set_domain(model, *domains: tuple[str, int]) -> None:
    del model.opset_import[:]
    for domain, version in domains:
        model.opset_import.add(domain=domain, version=version)


NEWEST_IR, NEWEST = onnx.IR_VERSION, onnx.defs.onnx_opset_version()
MODEL_CASES = {
    "no_graph": (lambda m: m.ClearField("graph"), "the model has no graph"),
    "no_outputs": (lambda m: m.graph.ClearField("output"), "the graph has no outputs"),
    "old_ir": (lambda m: setattr(m, "ir_version", 2), "the model's ir_version is not supported"),
    "no_ir": (lambda m: m.ClearField("ir_version"), "the model's ir_version is not supported"),
    "new_ir": (lambda m: setattr(m, "ir_version", NEWEST_IR + 1), "the model's ir_version is not supported"),
    "negative_ir": (lambda m: setattr(m, "ir_version", -1), "the model's ir_version is not supported"),
    "no_opset": (lambda m: set_domain(m), "the model imports no operator set"),
    "opset_0": (lambda m: set_domain(m, ("", 0)), "operator set '' has a version that is not known"),
    "new_opset": (lambda m: set_domain(m, ("", NEWEST + 1)), "operator set '' has a version that is not known"),
    "huge_opset": (lambda m: set_domain(m, ("", 2**62)), "operator set '' has a version that is not known"),
    "negative_opset": (lambda m: set_domain(m, ("mine", -1)), "operator set 'mine' has a version that is not known"),
    "opset_twice": (lambda m: set_domain(m, ("", 17), ("", 13)), "operator set '' is imported twice"),
    "opset_aliases": (lambda m: set_domain(m, ("", 17), ("ai.onnx", 17)), "operator set '' is imported twice"),
    "unnamed_input": (lambda m: m.graph.input.add(), "the name of graph input 1 is empty"),
    "unnamed_output": (lambda m: m.graph.output.add(), "the name of graph output 1 is empty"),
    "unnamed_initializer": (lambda m: m.graph.initializer.add(), "the name of initializer 2 is empty"),
    "input_twice": (lambda m: m.graph.input.add(name="x"), "graph input 'x' occurs twice"),
    "output_twice": (lambda m: m.graph.output.add(name="y"), "graph output 'y' occurs twice"),
    "initializer_twice": (lambda m: m.graph.initializer.add(name="w"), "initializer 'w' occurs twice"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "the graph has a sparse initializer"),
    "output_of_nobody": (lambda m: m.graph.output.add(name="z"), "output 'z' is not computed by any node"),
}


@pytest.mark.parametrize("case", MODEL_CASES)
def test_models(case):
    edit, message = MODEL_CASES[case]
    refused(change(edit), message)


def attribute(model, **fields):
    del node(model).attribute[:]
    return node(model).attribute.add(**{"name": "a", **fields})


TYPE_ERROR = "the attribute does not hold what its type says"
# Node 0 of the dense model is named 'dense', a Gemm: x, w, b → h; node 1 is a Relu: h → a; node 2 a Softmax: a → y.
NODE_CASES = {
    "no_op_type": (lambda m: node(m).ClearField("op_type"), "the node's op_type is empty", 0),
    "domain": (lambda m: setattr(node(m), "domain", "com.x"), "the node's operator set is not imported", 0),
    "unknown_value": (lambda m: node(m).input.append("nowhere"), "the node uses 'nowhere', which nothing defines", 0),
    "itself": (lambda m: node(m).input.append("h"), "the node uses 'h' before it is computed", 0),
    "cycle": (lambda m: node(m).input.append("a"), "the node uses 'a' before it is computed", 0),
    "not_sorted": (lambda m: m.graph.node.reverse(), "the node uses 'a' before it is computed", 0),
    "again": (lambda m: m.graph.node[1].output.append("h"), "the node defines 'h', which is defined already", 1),
    "over_an_input": (lambda m: node(m).output.append("x"), "the node defines 'x', which is defined already", 0),
    "over_a_weight": (lambda m: node(m).output.append("w"), "the node defines 'w', which is defined already", 0),
    "twice_in_a_node": (lambda m: node(m).output.append("h"), "the node defines 'h', which is defined already", 0),
    "deleted": (lambda m: m.graph.node.pop(0), "the node uses 'h', which nothing defines", 0),
    "attribute_twice": (lambda m: node(m).attribute.add(name="alpha", type=1), "attribute 'alpha' occurs twice", 0),
    "unnamed_attribute": (lambda m: node(m).attribute.add(type=1), "the name of the node's attribute is empty", 0),
}  # fmt: skip


@pytest.mark.parametrize("case", NODE_CASES)
def test_nodes(case):
    edit, message, place = NODE_CASES[case]
    model = change(edit)
    found = node(model, place)
    refused(model, message, f"the given model, node {place} '{found.name}' ({found.op_type})")


ATTRIBUTE_CASES = {
    "no_type": (dict(f=1.0), "the attribute has no type"),
    "wrong_number": (dict(type=Attribute.INT, f=1.0), TYPE_ERROR),
    "wrong_list": (dict(type=Attribute.FLOATS, ints=[1]), TYPE_ERROR),
    "two_values": (dict(type=Attribute.INT, i=1, s=b"x"), TYPE_ERROR),
    "no_tensor": (dict(type=Attribute.TENSOR), TYPE_ERROR),
    "no_graph": (dict(type=Attribute.GRAPH), TYPE_ERROR),
    "sparse": (dict(type=Attribute.SPARSE_TENSOR, sparse_tensor={}), "sparse tensors are not supported"),
    "sparse_list": (dict(type=Attribute.SPARSE_TENSORS), "sparse tensors are not supported"),
}


@pytest.mark.parametrize("case", ATTRIBUTE_CASES)
def test_attributes(case):
    fields, message = ATTRIBUTE_CASES[case]
    refused(change(lambda m: attribute(m, **fields)), message, "the given model, node 0 'dense' (Gemm), attribute 'a'")


def test_an_attribute_says_what_it_holds():
    error = refused(
        change(lambda m: attribute(m, type=Attribute.INT, f=1.0)), TYPE_ERROR,
        "the given model, node 0 'dense' (Gemm), attribute 'a'",
    )  # fmt: skip
    assert error.expected == "a INT in the field 'i'" and error.got == "f"


def test_a_value_used_too_early_says_where_it_is_computed():
    error = refused(
        change(lambda m: node(m).input.append("a")), "before it is computed", "the given model, node 0 'dense' (Gemm)"
    )
    assert error.got == "its definition in the given model, node 1 'relu' (Relu)"


def fields_that_are_text(model):
    """Yield (what it is, function that sets it) for every text of a model that is looked at."""
    graph = model.graph
    for what, message, field in [
        ("graph", graph, "name"), ("input", graph.input[0], "name"), ("output", graph.output[0], "name"),
        ("initializer", graph.initializer[0], "name"), ("node", graph.node[0], "name"),
        ("op_type", graph.node[0], "op_type"), ("node domain", graph.node[0], "domain"),
        ("opset domain", model.opset_import[0], "domain"), ("attribute", graph.node[0].attribute[0], "name"),
        ("reference", graph.node[0].attribute[0], "ref_attr_name"),
    ]:  # fmt: skip
        yield what, lambda text, message=message, field=field: setattr(message, field, text)
    for what, names in [("operand", graph.node[0].input), ("result", graph.node[0].output)]:
        yield what, lambda text, names=names: names.append(text)
    for what, value in [("size of an input", graph.input[0]), ("size of an output", graph.output[0])]:
        yield what, lambda text, value=value: setattr(value.type.tensor_type.shape.dim[0], "dim_param", text)
    function = model.functions.add(name="F", domain="mine")
    function.opset_import.add(domain="", version=17)
    yield "parameter", function.attribute.append
    yield "default", lambda text: function.attribute_proto.add(name=text)


@pytest.mark.parametrize("place", range(16))
def test_names_that_are_no_text(place):
    """Protobuf does not check that a text is one; nobody after us should meet bytes in its place."""
    model = small_onnx.dense()
    fields = list(fields_that_are_text(model))
    assert len(fields) == 16
    what, put = fields[place]
    put("#mark#")
    data = model.SerializeToString()
    assert data.count(b"#mark#") == 1, what
    with pytest.raises(ModelFormatError, match=r"is not text\n  expected: valid UTF-8"):
        read_model(data.replace(b"#mark#", b"\xff\xfe\x00\x80mn"))


def test_strange_names_are_shown_quoted_and_short():
    name = "\x1b[31m" + "long" * 10**5
    error = refused(
        change(lambda m: node(m).input.append(name)), "nothing defines", "the given model, node 0 'dense' (Gemm)"
    )
    assert "\x1b" not in str(error) and len(str(error)) < 500
    assert "\\x1b[31mlong" in str(error)


def test_what_is_allowed():
    unnamed = change(lambda m: [n.ClearField("name") for n in m.graph.node])
    same_names = change(lambda m: [setattr(n, "name", "same") for n in m.graph.node])
    default = change(lambda m: m.graph.input.add(name="w"))  # a weight may be an input's default, as in old files
    alias = change(lambda m: [set_domain(m, ("ai.onnx", 17)), setattr(node(m), "domain", "ai.onnx")])
    foreign = change(lambda m: [set_domain(m, ("", 17), ("com.x", 9000)), setattr(node(m), "domain", "com.x")])
    absent_zero = change(lambda m: attribute(m, type=Attribute.INT))
    passed_on = change(lambda m: m.graph.output.add(name="x"))  # an input may be an output
    for model in (unnamed, same_names, default, alias, foreign, absent_zero, passed_on):
        read_model(model)
    for version in (3, NEWEST_IR):
        read_model(change(lambda m, version=version: setattr(m, "ir_version", version)))
    for version in (1, NEWEST):
        read_model(change(lambda m, version=version: set_domain(m, ("", version))))


# --- subgraphs and functions -----------------------------------------------------------------------------------------


def then_branch(model):
    """Return the graph inside the `If` of `small_onnx.branches()`."""
    return model.graph.node[0].attribute[0].g


INSIDE = "the given model, node 0 'if0' (If), subgraph {!r}"
SUBGRAPH_CASES = {
    "unknown": (lambda g: g.node[0].input.append("z"), "uses 'z', which nothing defines", ", node 0 'r' (Relu)"),
    "sibling": (lambda g: g.node[0].input.append("out0"), "uses 'out0', which nothing defines", ", node 0 'r' (Relu)"),
    "outer_again": (lambda g: g.node[0].output.append("x"), "defines 'x', which is defined", ", node 0 'r' (Relu)"),
    "output": (lambda g: g.output.add(name="z"), "output 'z' is not computed by any node", ""),
    "sparse": (lambda g: g.sparse_initializer.add(), "sparse initializer", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", SUBGRAPH_CASES)
def test_subgraphs(case):
    edit, message, place = SUBGRAPH_CASES[case]
    model = small_onnx.branches()
    name = node(model).attribute[0].name
    edit(then_branch(model))
    refused(model, message, INSIDE.format(name) + place)


def test_a_subgraph_sees_what_was_before_its_node_only():
    model = small_onnx.branches()
    model.graph.node.add(op_type="Relu", input=["x"], output=["later"])
    read_model(model)
    then_branch(model).node[0].input.append("later")
    refused(
        model,
        "uses 'later', which nothing defines",
        INSIDE.format(node(model).attribute[0].name) + ", node 0 'r' (Relu)",
    )
    model.graph.node.reverse()
    read_model(model)


def test_branches_may_use_the_same_names_and_hide_outer_ones_as_inputs():
    model = small_onnx.branches()
    assert then_branch(model) == model.graph.node[0].attribute[1].g
    then_branch(model).input.add(name="x")
    read_model(model)


def test_a_branch_may_give_an_outer_value():
    model = small_onnx.branches()
    then_branch(model).output[0].name = "x"
    read_model(model)


def test_graphs_in_lists_are_looked_at():
    model = small_onnx.branches()
    inner = model.graph.node[0].attribute[0]
    inner.graphs.append(inner.g)
    inner.ClearField("g")
    inner.type = Attribute.GRAPHS
    read_model(model)
    inner.graphs[0].node[0].input[0] = "z"
    refused(model, "uses 'z', which nothing defines", INSIDE.format(inner.name) + ", node 0 'r' (Relu)")


def test_nesting_has_a_limit():
    read_model(nested(verifier.MAX_NESTING))
    with pytest.raises(ModelFormatError, match="subgraphs are nested too deeply") as caught:
        read_model(nested(verifier.MAX_NESTING + 1))
    assert caught.value.expected == "at most 8" and str(caught.value.where).count("subgraph") == 9
    with pytest.raises(ModelFormatError, match="subgraphs are nested too deeply"):
        read_model(nested(30))  # as deep as protobuf allows


def nested(depth: int):
    """Return a model with an attribute's graph in an attribute's graph in …"""
    model = small_onnx.chain(1)
    graph = model.graph
    for level in range(depth):
        graph = node_with_graph(graph, f"s{level}")
    return model


def node_with_graph(graph, name: str):
    return graph.node.add(op_type="Loop", name=name).attribute.add(name="body", type=Attribute.GRAPH, g={"name": "b"}).g


def test_the_number_of_nodes_has_a_limit(monkeypatch):
    assert verifier.MAX_NODES == 1_000_000
    monkeypatch.setattr(verifier, "MAX_NODES", 10)
    read_model(small_onnx.chain(10))
    refused(small_onnx.chain(11), "the model has too many nodes")
    branches = small_onnx.branches(2)  # 1 + 2 + 4, the nodes of subgraphs counted
    read_model(branches)
    for i in range(4):
        branches.graph.node.add(op_type="Relu", input=["x"], output=[f"r{i}"])
    assert refused(branches, "the model has too many nodes").expected == "at most 10"
    model, function = with_function()  # one that nothing calls
    for i in range(9):
        function.node.add(op_type="Relu", input=["a"], output=[f"r{i}"])
    refused(model, "the model has too many nodes")


def with_function():
    model = small_onnx.chain(1)
    function = model.functions.add(name="F", domain="mine", input=["a"], output=["b"])
    function.opset_import.add(domain="", version=17)
    function.node.add(op_type="Relu", input=["a"], output=["b"])
    model.opset_import.add(domain="mine", version=1)
    return model, function


FUNCTION_CASES = {
    "unknown": (lambda f: f.node[0].input.append("z"), "uses 'z', which nothing defines"),
    "outer": (lambda f: f.node[0].input.append("x0"), "uses 'x0', which nothing defines"),
    "again": (lambda f: f.node[0].output.append("a"), "defines 'a', which is defined already"),
    "output": (lambda f: f.output.append("z"), "output 'z' is not computed by any node"),
    "input_twice": (lambda f: f.input.append("a"), "function input 'a' occurs twice"),
    "no_opset": (lambda f: f.ClearField("opset_import"), "imports no operator set"),
    "no_name": (lambda f: f.ClearField("name"), "the name of a function is empty"),
    "domain": (lambda f: setattr(f.node[0], "domain", "mine"), "the node's operator set is not imported"),
}


@pytest.mark.parametrize("case", FUNCTION_CASES)
def test_functions(case):
    model, function = with_function()
    read_model(model)
    edit, message = FUNCTION_CASES[case]
    edit(function)
    with pytest.raises(ModelFormatError, match=re.escape(message)) as caught:
        read_model(model)
    assert case == "no_name" or str(caught.value.where).startswith("the given model, function 'F'")


def test_a_function_that_calls_itself():
    model, function = with_function()
    function.opset_import.add(domain="mine", version=1)
    function.node[0].domain, function.node[0].op_type = "mine", "F"
    assert refused(model, "a function calls itself").got == "'F' → 'F'"
    other = model.functions.add()
    other.CopyFrom(function)
    refused(model, "function 'F' is defined twice")
    other.name = "G"
    function.node[0].op_type = "G"
    assert set(refused(model, "a function calls itself").got.split(" → ")) == {"'F'", "'G'"}


@pytest.mark.parametrize(("levels", "allowed"), [(1, True), (19, True), (20, False), (500, False)])
def test_calls_that_double_and_double(levels, allowed):
    """A short file can stand for 2^500 nodes."""
    model, first = with_function()
    first.name = "F0"
    for level in range(1, levels):
        function = model.functions.add()
        function.CopyFrom(first)
        function.name = f"F{level}"
        function.opset_import.add(domain="mine", version=1)
        del function.node[:]
        for place, (old, new) in enumerate((("a", "c"), ("c", "b"))):
            called = node_with_graph(function, "loop") if place and level % 2 else function  # in a subgraph too
            called.node.add(op_type=f"F{level - 1}", domain="mine", input=[old], output=[new])
            if called is not function:
                called.output.add(name=new)
                function.node[-1].output.append(new)
                called.node[0].output[0] = called.output[0].name = "inner"
    call = model.graph.node[0]
    call.domain, call.op_type = "mine", f"F{levels - 1}"
    if allowed:
        read_model(model)
        return
    error = refused(model, "too many nodes, the calls of functions counted as what they stand for")
    assert error.got == "1,000,001 or more"


def test_an_attribute_of_a_function_may_stand_for_one_of_the_call():
    """An attribute of a function's node may stand for one that the call gives."""
    model, function = with_function()
    function.node[0].attribute.add(name="body", type=Attribute.GRAPH, ref_attr_name="outer")
    read_model(model)


# --- depth and size --------------------------------------------------------------------------------------------------


def seconds(model) -> float:
    def once() -> float:
        begin = time.process_time()
        read_model(model)
        return time.process_time() - begin

    return min(once() for _ in range(3))


def wide(n: int):
    """One value with many readers, and a sum of all of them."""
    model = small_onnx.chain(0)
    for i in range(n):
        model.graph.node.add(op_type="Relu", input=["x0"], output=[f"r{i}"])
    model.graph.node.add(op_type="Sum", input=[f"r{i}" for i in range(n)], output=["s"])
    return model


@pytest.mark.parametrize("make", [small_onnx.chain, wide])
def test_time_is_linear_in_the_number_of_nodes(make):
    small, large = seconds(make(2_000)), seconds(make(20_000))
    assert large / small <= 20  # 10 when linear, 100 when quadratic


@pytest.mark.slow
def test_a_hundred_thousand_nodes():
    small, large = seconds(small_onnx.chain(10_000)), seconds(small_onnx.chain(100_000))
    assert large / small <= 12
