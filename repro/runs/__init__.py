"""Run records on disk: config, status, metrics, result and provenance, and records that belong to no run."""
