"""Matrices in memory: what svd, inverses and scaling need beyond LAPACK."""
