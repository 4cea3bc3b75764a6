"""Figures: numbers in, `matplotlib.figure.Figure` out, all in one style; without JAX and without the state of pyplot.

Every function that draws is decorated with `style.styled()` and makes its figure by `style.new_figure`; its caller
saves the figure by `style.save_figure`.
"""
