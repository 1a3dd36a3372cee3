"""Floor 1: the mathematics, on arrays in memory (numpy and scipy only)."""
