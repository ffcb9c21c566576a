"""Weights: bundles, published checkpoints, and how they are read without running anything in them."""
