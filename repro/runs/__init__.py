"""Run records on disk: what is asked, what happens, what came out."""
