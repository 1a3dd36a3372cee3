"""Floor 4: stabilized runs in order, with versions that are published, inspected and rolled
back.
"""
