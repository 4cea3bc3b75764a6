"""Ablation grids over the library."""
