"""Where the tests of this folder run: on a device (`pytest -m gpu`), or on the stand-in for one, on the processor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpu.places import Place
from minigraph.backends.cupy.gpu import missing
from minigraph.testing import cuda


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place to make backends of: the parameter is "device" or "stand-in"."""
    if request.param == "device":
        lacking = missing()
        if lacking is not None:
            pytest.skip(lacking)
        yield Place()
        return
    if not cuda.available():
        pytest.skip("no C++ compiler")
    with cuda.standin() as standin:
        yield Place(standin)
