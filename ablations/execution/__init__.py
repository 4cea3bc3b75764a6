"""Running a grid: what is left to do, who does it, and the store that keeps it."""
