"""Accidents in numbers: each driver gives the figures of one bar."""
