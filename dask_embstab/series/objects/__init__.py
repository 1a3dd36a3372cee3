"""A series on an object store: its files, its locks, and whether the store keeps its promises."""
