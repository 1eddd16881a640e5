"""Accidents in numbers. Each driver gives the figures of its bar; `make chaos` runs them large."""
