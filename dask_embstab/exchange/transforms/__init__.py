"""A transform in the formats that models, indexes and databases load."""
