"""The networks of an OCR program, as they are shipped: a classifier of directions, a detector and a recogniser.

They come with `pip install --no-deps rapidocr-onnxruntime`; the package itself is not imported.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", "1.17")
pytest.importorskip("onnxruntime")

from light_models import counts  # noqa: E402
from onnx_checks import check, run_elsewhere  # noqa: E402

import minigraph as mg  # noqa: E402

PACKAGE = importlib.util.find_spec("rapidocr_onnxruntime")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="needs rapidocr-onnxruntime")
TOLERANCE = 1e-4  # absolute, of probabilities


@dataclass(frozen=True)
class Shipped:
    """A network in the package: its file, the sizes that its open ones are bound to, its batch norms, what is left."""

    file: str
    shape: tuple[int, ...]
    norms: int
    nodes_left: int


NETWORKS = {
    "classifier": Shipped("ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192), 35, 179),
    "detector": Shipped("ch_PP-OCRv4_det_infer.onnx", (1, 3, 320, 320), 3, 269),
    "recogniser": Shipped("ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320), 6, 378),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def file_of(network):
    assert PACKAGE is not None and PACKAGE.origin is not None
    return Path(PACKAGE.origin).parent / "models" / network.file


def page(shape):
    """An image of lines of handwritten digits, dark on white, 24 pixels high, and the digits: noise is no text."""
    (images, labels), _ = mg.datasets.digits(seed=0)
    _, _, height, width = shape
    image, written = np.ones((height, width), np.float32), []
    for top in range(8, height - 23, 48):
        for left in range(16, width - 31, 24):
            digit = len(written)
            image[top : top + 24, left : left + 24] -= np.kron(images[digit, :, :, 0], np.ones((3, 3)))
            written.append(int(labels[digit]))
    return np.broadcast_to(2 * image - 1, shape).copy(), written


@pytest.fixture
def image(network):
    return page(network.shape)[0]


def assert_close(one, other):
    """Two results of probabilities agree, and are no constants."""
    assert one.keys() == other.keys()
    for output, values in one.items():
        assert np.ptp(values) > 100 * TOLERANCE, "the image shows in no result"
        assert other[output].shape == values.shape
        assert np.abs(other[output] - values).max() < TOLERANCE


def test_it_is_smaller_and_computes_the_same(network, image):
    path = file_of(network)
    model = onnx.load(path)
    smaller = check(mg.onnx.optimize(path, {"x": network.shape}))
    (nodes, norms), (nodes_left, norms_left) = counts(model), counts(smaller)
    print(f"{path.name}: {nodes} → {nodes_left} nodes, {norms} → {norms_left} batch norms")
    assert norms == network.norms
    assert nodes_left <= network.nodes_left and norms_left == 0
    before, by = run_elsewhere(model, {"x": image})
    after, by_too = run_elsewhere(smaller, {"x": image})
    assert by == by_too == "onnxruntime"
    assert_close(before, after)


def test_it_computes_the_same_here(network, image):
    path = file_of(network)
    expected, _ = run_elsewhere(onnx.load(path), {"x": image})
    model = mg.onnx.load(path, {"x": network.shape})
    (output,) = expected
    assert_close(expected, {output: model.predict(image)})
    folded, _ = mg.optimize(model.lower("inference"), model.state)
    assert_close(expected, dict(mg.compile(folded)(x=image)))


def test_it_goes_out_again_as_it_came(network, image):
    path = file_of(network)
    model = mg.onnx.load(path, {"x": network.shape})
    proto = check(mg.onnx.to_proto(model))
    assert counts(proto)[1] == network.norms
    assert_close(run_elsewhere(onnx.load(path), {"x": image})[0], run_elsewhere(proto, {"x": image})[0])


def test_it_reads_what_is_written():
    network = NETWORKS["recogniser"]
    image, written = page(network.shape)
    path = file_of(network)
    (characters,) = [prop.value.split("\n") for prop in onnx.load(path).metadata_props if prop.key == "character"]
    found = mg.onnx.load(path, {"x": network.shape}).predict(image)[0].argmax(-1)
    # Class 0 stands between characters (Graves et al. 2006).
    text = [characters[c - 1] for c, before in zip(found, [0, *found], strict=False) if c not in (0, before)]
    assert text == [str(digit) for digit in written]
