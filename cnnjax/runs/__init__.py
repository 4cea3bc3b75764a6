"""What was run and what came of it: configuration, record, store, checkpoints, provenance, trackers."""
