"""What `experiments.explain` can explain, a module each, and what their commands share."""
