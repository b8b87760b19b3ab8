"""The onnx package, imported when it is first needed, and names from a file as messages show them."""

from __future__ import annotations

import reprlib
from types import ModuleType

from minigraph.errors import MissingExtraError

_NAMES = reprlib.Repr()
_NAMES.maxstring = _NAMES.maxother = 80


def onnx_package() -> ModuleType:
    """Return the onnx package; raises MissingExtraError, which names the extra that brings it.

    >>> onnx_package().ModelProto().ByteSize()  # doctest: +SKIP
    0
    """
    try:
        # The submodule, because any folder called onnx on the import path would satisfy `import onnx`.
        import onnx.helper
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", "reading and writing ONNX files") from error
    package: ModuleType = onnx
    return package


def shown(name: object) -> str:
    """Return a name from a file as a message shows it: quoted, control characters escaped, never long.

    >>> shown("conv1"), shown("a" * 10**6) == shown("a" * 10**7), len(shown("a" * 10**6))
    ("'conv1'", True, 80)
    """
    return _NAMES.repr(name)
