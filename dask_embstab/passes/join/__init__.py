"""Which reference row belongs to which row, and how does a task read it?"""
