"""Pictures: numbers in, `matplotlib.figure.Figure` out, in one style. No JAX here, and no state of pyplot's.

Every function that draws is decorated with `style.styled()`, makes its figure by `style.new_figure`, and leaves it to
its caller to save it, by `style.save_figure`.
"""
