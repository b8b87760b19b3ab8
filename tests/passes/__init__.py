"""Tests of the passes: a picture for each rule, provenance, lowering; and `pictures`, which checks them."""
