"""Which exposures saw a position."""
