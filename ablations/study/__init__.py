"""The study language: from TOML, or the command line, to a grid of cells and trials. No JAX here."""
