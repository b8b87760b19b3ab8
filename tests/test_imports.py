"""Imports run one way, and `import minigraph` loads NumPy alone, quickly."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

import minigraph

PACKAGE = pathlib.Path(minigraph.__file__).parent

# Top to bottom: a part may import what stands below it, and itself.
LEVELS = [
    {"cli", "__main__"},
    {"bench"},
    {"training", "models", "viz", "onnx", "testing"},
    {"layers", "optimizers", "losses", "metrics"},
    {"runtime"},
    {"autodiff", "passes", "backends"},
    {"ops"},
    {"ir"},
    {"errors"},
]
LEVEL = {part: i for i, parts in enumerate(LEVELS) for part in parts}
# Parts beside the tower: what each may import, and who may import it.
BESIDE = {
    "data": {"errors"},
    "datasets": {"errors", "data"},
    "augmentation": {"errors", "data"},
    "files": {"errors"},
    "assets": set(),
}
USES_BESIDE = {"backends", "cli", "__main__", "training", "runtime", "models", "viz", "onnx", "datasets", "losses"}
# Arrows between neighbours of one level that are meant.
NEIGHBOURS = {
    ("models", "training"),
    ("__main__", "cli"),
    ("onnx", "training"),
}
# Modules that are not ours nor Python's: who may import them. NumPy is everybody's but ir's and passes'.
THIRD_PARTY = {
    "safetensors": {"training", "models"},
    "graphviz": {"viz"},
    "graphviz_pure": {"viz"},
    "matplotlib": {"viz"},
    "cupy": {"backends"},
    "ml_dtypes": {"backends"},
    "onnx": {"onnx"},
    "google": {"onnx"},  # protobuf, whose error a damaged file raises
    "mlxtend": {"datasets"},
    "torch": {"bench"},
    "jax": {"bench"},
    "onnxruntime": {"bench"},
}
NOT_NUMPY = {"ir", "passes", "errors", "autodiff"}


def part_of(module: str) -> str:
    """Return the part of the package a module belongs to: `minigraph.ir.node` → ir."""
    return module.split(".")[1] if "." in module else ""


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


class _Imports(ast.NodeVisitor):
    """Collects (module, line) of all imports, wherever they stand, but for those under `if TYPE_CHECKING`."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.found: list[tuple[str, int]] = []

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(name.name, node.lineno) for name in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            base = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
            module = ".".join([*base, module]) if module else ".".join(base)
        # `from minigraph import ops` imports minigraph.ops.
        self.found += [(f"{module}.{n.name}" if module == "minigraph" else module, node.lineno) for n in node.names]


def imports(module: str, path: pathlib.Path) -> list[tuple[str, int]]:
    visitor = _Imports(module if path.name == "__init__.py" else module.rpartition(".")[0])
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor.found


def every_import() -> list[tuple[str, str, str]]:
    """Return (importer, imported module, where) for the whole package but its root."""
    return [
        (module, imported, f"{path.relative_to(PACKAGE.parent)}:{line}")
        for module, path in modules().items()
        if module != "minigraph"
        for imported, line in imports(module, path)
    ]


def allowed(source: str, target: str) -> bool:
    if source == target or (source, target) in NEIGHBOURS:
        return True
    if source in BESIDE:
        return target in BESIDE[source]
    if target in BESIDE:
        return source in USES_BESIDE
    return LEVEL[source] < LEVEL[target]


def test_every_part_has_its_place():
    parts = {part_of(m) for m in modules()} - {""}
    assert parts <= set(LEVEL) | set(BESIDE), f"say where {parts - set(LEVEL) - set(BESIDE)} stands, in LEVELS"


def test_no_arrow_runs_the_other_way():
    wrong = [
        f"{where}: {importer} → {imported}"
        for importer, imported, where in every_import()
        if imported.startswith("minigraph.") and part_of(imported) in set(LEVEL) | set(BESIDE)
        and not allowed(part_of(importer), part_of(imported))
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_the_reader_of_imports_reads_them():
    source = (
        "from typing import TYPE_CHECKING\nimport a.b\nfrom . import c\nfrom .d import e\nfrom minigraph import ops\n"
        "if TYPE_CHECKING:\n    import hidden\ndef f():\n    from minigraph.ir.node import Node\n"
    )
    visitor = _Imports("minigraph.ir")
    visitor.visit(ast.parse(source))
    assert [m for m, _ in visitor.found] == [
        "typing", "a.b", "minigraph.ir", "minigraph.ir.d", "minigraph.ops", "minigraph.ir.node",
    ]  # fmt: skip
    assert not allowed("ir", "ops") and not allowed("passes", "backends") and not allowed("data", "ops")
    assert allowed("cli", "errors") and allowed("training", "data") and not allowed("ops", "data")


def test_other_peoples_modules_stay_where_they_belong():
    wrong = []
    for importer, imported, where in every_import():
        top, part = imported.split(".")[0], part_of(importer)
        if top in sys.stdlib_module_names or top == "minigraph":
            continue
        if top == "numpy":
            if part in NOT_NUMPY:
                wrong.append(f"{where}: {part} imports numpy")
        elif part not in THIRD_PARTY.get(top, set()):
            wrong.append(f"{where}: {part} imports {top}")
    assert not wrong, "\n".join(wrong)


def test_no_star_imports_and_no_imports_of_private_modules():
    for importer, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minigraph"):
                assert all(n.name != "*" for n in node.names), importer
                assert not any(p.startswith("_") for p in (node.module or "").split(".")), importer


def fresh_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done


def loaded(code: str) -> set[str]:
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    return {name.split(".")[0] for name in fresh_python("-c", script).stdout.split()}


def test_importing_minigraph_loads_numpy_alone():
    ours = loaded("import minigraph") - loaded("import numpy, numpy.random") - set(sys.stdlib_module_names)
    assert ours <= {"minigraph"}, ours


@pytest.mark.parametrize("part", ["ir", "ops", "passes", "runtime", "layers", "training", "viz"])
def test_each_part_can_be_imported_first(part):
    fresh_python("-c", f"import minigraph.{part}")


def test_importing_minigraph_is_quick():
    """The target is 0.2 s over NumPy alone; the bound is generous, because test machines are busy."""

    def seconds() -> float:
        report = fresh_python("-X", "importtime", "-c", "import numpy, numpy.random, minigraph").stderr
        (line,) = re.findall(r"\|\s*(\d+) \| minigraph$", report, re.MULTILINE)
        return int(line) / 1e6

    best = min(seconds() for _ in range(3))
    print(f"import minigraph: {best:.3f} s over NumPy")
    assert best < 0.8


def test_what_is_loaded_when_first_asked_for():
    assert "safetensors" not in loaded("import minigraph; minigraph.Model; minigraph.layers.Dense; minigraph.viz")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = minigraph.nothing
    for name in minigraph.__all__:
        assert getattr(minigraph, name) is not None
