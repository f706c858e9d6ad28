"""Training: one loop (`loop.py`), and what it is made of. It knows no objective by name."""
