"""The networks of the benchmark in several libraries, each trained in its own process."""
