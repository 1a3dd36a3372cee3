"""What is done to a series that stands: rebase, gc, verify, replay, status."""
