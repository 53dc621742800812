"""The YAML of the configuration, its schema, and what is built from it."""
