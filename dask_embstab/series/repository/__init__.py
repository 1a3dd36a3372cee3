"""A series in an Icechunk repository on an object store: its place, its files, its commits."""
