"""Jobs over many photos, kept on disk."""
