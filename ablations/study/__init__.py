"""Studies: reading them, and expanding them into a grid of cells and trials. No JAX here."""
