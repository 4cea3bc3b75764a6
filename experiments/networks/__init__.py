"""Example networks: plain Flax modules that import nothing of this project.

Each can be trained and ablated by its fields, such as ``--model experiments/networks/resnet.py:ResNet``.
"""
