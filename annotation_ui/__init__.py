"""Label Studio over HTTP: a local server, projects, pages, verdicts (stage 3)."""
