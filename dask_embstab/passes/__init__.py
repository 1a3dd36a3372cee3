"""Floor 3: Dask - one streaming pass over tables per module, one task per chunk, one fixed-order
tree.
"""
