"""From a configuration to a stored run: optimizer, step, compiled programs, the loop over epochs."""
