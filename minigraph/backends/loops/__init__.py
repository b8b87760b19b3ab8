"""Loops over elements as text: what the C backend and the GPU backend generate from the same expressions.

Read `domain` (what a loop runs over), `expressions` (an op as text), `body` (its statements), `loop` (a node's loop).
"""
