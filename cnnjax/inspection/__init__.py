"""What is inside a trained network, and inside a convolution: numbers for the pictures of `cnnjax.figures`."""
