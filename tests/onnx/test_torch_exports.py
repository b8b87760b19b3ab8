"""Models as PyTorch's own exporter writes them, attention, squeeze-excite and open batch sizes included."""

import collections
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", "1.17")
torch = pytest.importorskip("torch")

import minigraph as mg  # noqa: E402

nn = torch.nn


class SqueezeExcite(nn.Module):
    """A residual block with channel attention."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        squeeze, excite = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 1)
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), squeeze, nn.SiLU(), excite, nn.Sigmoid())

    def forward(self, x):
        """Return ReLU(x + f(x)·scale(f(x)))."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(x + y * self.scale(y))


class Mixed(nn.Module):
    """Images, then a sequence: what a network of today is made of."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.layer1 = nn.Sequential(SqueezeExcite(16), SqueezeExcite(16))
        self.up, self.depthwise = (
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
        )
        self.group, self.instance = nn.GroupNorm(4, 16), nn.InstanceNorm2d(16, affine=True)
        self.back, self.conv, self.bn = (
            nn.ConvTranspose2d(16, 16, 2, 2),
            nn.Conv1d(16, 16, 3, padding=1),
            nn.BatchNorm1d(16),
        )
        self.layer, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.drop, self.fc = nn.Dropout(0.3), nn.Linear(16, 10)

    def forward(self, x):
        """Return logits."""
        x = self.instance(self.group(self.depthwise(self.up(self.layer1(self.stem(x))))))
        x = nn.functional.gelu(self.back(nn.functional.max_pool2d(x, 2)))
        t = self.layer(self.bn(self.conv(x.flatten(2))).transpose(1, 2))[:, :64]
        t = t + self.attention(t, t, t)[0]
        return self.fc(self.drop(t.mean(1)))


def exported(path, **options):
    """Return the network's answer to an image batch, that batch, and the file PyTorch wrote."""
    torch.manual_seed(0)
    network = Mixed().eval()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own exporters
        torch.onnx.export(network, (x,), path, dynamo=False, input_names=["x"], output_names=["y"], **options)
    return network(x).detach().numpy(), x.numpy()


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("open_batch", [False, True])
def test_an_exported_network_is_read_folded_and_optimised(tmp_path, opset, open_batch):
    path = str(tmp_path / "network.onnx")
    axes = {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}} if open_batch else {}
    expected, x = exported(path, opset_version=opset, **axes)
    model = mg.onnx.load(path)
    assert model.graph.symbols == (("N",) if open_batch else ())
    assert np.abs(model.predict(x) - expected).max() <= 2e-6
    folded, _ = mg.optimize(model.lower("inference"), model.state)
    assert "batch_norm" not in {node.op.name for node in folded.nodes}
    assert np.abs(mg.compile(folded)(x=x)["y"] - expected).max() <= 2e-6
    optimized = mg.onnx.optimize(path)
    onnx.checker.check_model(optimized, full_check=True)
    counts = collections.Counter(node.op_type for node in optimized.graph.node)
    assert counts["BatchNormalization"] == 0
    assert len(optimized.graph.node) < len(onnx.load(path).graph.node)
    assert np.abs(mg.onnx.load(optimized).predict(x) - expected).max() <= 2e-6


def test_scopes_are_pytorchs_modules(tmp_path):
    path = str(tmp_path / "network.onnx")
    exported(path)
    scopes = {node.origin.scope for node in mg.onnx.load(path).graph.nodes}
    assert {"stem/stem.0", "layer1/layer1.0/conv1", "fc"} <= scopes
