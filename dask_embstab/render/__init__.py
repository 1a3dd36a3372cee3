"""What a person reads of the results: text, JSON and pictures, made from plain values."""
