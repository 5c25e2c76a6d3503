"""Label Studio over HTTP: projects, pages, verdicts, a local server (stage 3; not built yet)."""
