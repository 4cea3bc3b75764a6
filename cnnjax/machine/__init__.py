"""The machine underneath: files, processes, JAX's start, devices."""
