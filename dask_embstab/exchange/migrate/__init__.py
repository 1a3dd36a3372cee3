"""What becomes of stored vectors when a model is retrained."""
