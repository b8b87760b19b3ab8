"""Ready networks, each a function of readable length; `recipes` trains some of them on real data."""

from minigraph.models.densenet import densenet121, densenet_cifar
from minigraph.models.inception import inception_v3
from minigraph.models.lenet import lenet5
from minigraph.models.mobilenet import mobilenet_v2
from minigraph.models.preact import preact_resnet18, preact_resnet50
from minigraph.models.resnet import cifar_resnet, resnet18, resnet20, resnet34, resnet50
from minigraph.models.small import digits_network, mnist_network
from minigraph.models.vgg import vgg11, vgg13, vgg16, vgg16_cifar
from minigraph.models.weights import load_weights
from minigraph.models.xception import xception

__all__ = [
    "cifar_resnet",
    "densenet121",
    "densenet_cifar",
    "digits_network",
    "inception_v3",
    "lenet5",
    "load_weights",
    "mnist_network",
    "mobilenet_v2",
    "preact_resnet18",
    "preact_resnet50",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg16_cifar",
    "xception",
]
