"""Ready networks, each a function of readable length; `recipes` trains some of them on real data."""

from minigraph.models.small import digits_network, mnist_network

__all__ = ["digits_network", "mnist_network"]
