"""Figures that compare two tables or judge rankings: pure functions, sums that merge, estimates."""
