"""Studies of which the truth is known, and how often the statistics are wrong about them."""
