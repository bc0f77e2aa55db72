"""Master bias, master flat and science: many frames to one, one pass over memory, lazy on chunked input."""
