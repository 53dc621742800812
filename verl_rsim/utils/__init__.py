"""Leaf helpers: errors, progress, validators, artefact folders, safe loading. Imports no other room."""
