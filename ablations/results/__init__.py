"""What the store says of a grid. No JAX here."""
