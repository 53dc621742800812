"""Saves, restores, exports and merges both policies."""
