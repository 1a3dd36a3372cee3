"""Vectors served online: the head of a series, reloaded when a run is published."""
