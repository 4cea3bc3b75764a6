"""The parts of ``experiments.reliability``: damaged inputs, kills at every write, and a hostile environment."""
