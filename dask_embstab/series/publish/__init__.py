"""How a run becomes a version: fit, apply, read back, gates, publish."""
