"""What a library computes after a convolution, in the same pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epilogue:
    """+ bias of the channel, + residual, max(·, 0), in this order; places are those of a step's operands.

    >>> bool(Epilogue()), bool(Epilogue(relu=True))
    (False, True)
    """

    bias: int | None = None
    residual: int | None = None
    relu: bool = False

    def __bool__(self) -> bool:
        return self != Epilogue()
