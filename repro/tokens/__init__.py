"""Token selectors: which tokens a transformer goes on with."""
