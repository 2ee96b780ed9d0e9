"""Token selection: which tokens a transformer keeps."""
