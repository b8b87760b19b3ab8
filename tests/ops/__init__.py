"""Tests of the ops: drawn cases, gradients, shape rules, differentiation."""
