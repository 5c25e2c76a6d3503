"""The benchmark: releases that explain themselves, and scores on them."""

from benchmark.dataset import load

__all__ = ["load"]
