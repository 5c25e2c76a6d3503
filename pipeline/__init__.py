"""How things run: tables, run folder, Ray session, shards, masks, configuration, command line."""
