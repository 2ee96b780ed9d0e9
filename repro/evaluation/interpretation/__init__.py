"""Interpretation of vision transformers: heat maps, how well they segment objects, and kept patches."""
