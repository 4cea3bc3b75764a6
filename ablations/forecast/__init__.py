"""What a grid will cost and can show, before it is run. No JAX here."""
