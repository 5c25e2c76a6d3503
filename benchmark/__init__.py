"""The released benchmark: importers, release, metrics, scores, report (not built yet)."""
