"""JSON Schemas of the store."""
