"""Indexes and vector stores: built of a run, searched, moved into another space."""
