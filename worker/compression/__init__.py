"""Compress a trained model, and prove what was kept. The library's front door."""
