"""A small world whose tastes and catalogue change day by day, and a factorization to train
on it.
"""
