"""Compressed rows: what a few bytes say of a row vector, and the row that they give back."""
