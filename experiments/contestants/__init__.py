"""The textbook network in other libraries, each trained by a process of its own on the same recipe and images."""
