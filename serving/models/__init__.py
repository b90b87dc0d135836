"""Exported models: manifest, session, repository."""
