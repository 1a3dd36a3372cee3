"""Ids: read, keyed, matched, looked up, out of core."""
