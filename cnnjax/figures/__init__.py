"""Draws figures in one style: functions take numbers and return a `matplotlib.figure.Figure`. No JAX, no pyplot.

Every drawing function is decorated with `style.styled()` and creates its figure with `style.new_figure`. The caller
saves figures with `style.save_figures`.
"""
