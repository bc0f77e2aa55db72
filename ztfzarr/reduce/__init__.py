"""From raw to products: what is missing of a version is computed, written once and marked."""
