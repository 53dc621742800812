"""Datasets and the small models that packages ship."""
