"""A grid before it is run: its time, and the differences that it could find. No JAX here."""
