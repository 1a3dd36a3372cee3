"""Graphs of tasks: planned, computed, reduced, written."""
