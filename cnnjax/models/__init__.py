"""Networks: what the library needs of one, the CNN, its layers."""
