"""Stores that Zarr reads and writes through, where they are no folders."""
