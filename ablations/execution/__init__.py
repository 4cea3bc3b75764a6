"""Running a grid: its remaining trials, the workers that train them, and the coordinator that stores the results."""
