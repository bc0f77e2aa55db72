"""Starflats: from magnitudes of stars seen in many places of the camera to what flats leave in it."""
