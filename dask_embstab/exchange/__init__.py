"""What leaves for other libraries: runs and transforms in their formats."""
