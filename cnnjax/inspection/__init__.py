"""Numbers behind the pictures of `cnnjax.figures`: what a trained network computes, and how a window slides."""
