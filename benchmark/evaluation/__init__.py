"""The paper's Tables 1, 2, 3 and 7 for a checkpoint: what they take, what of it is there, and the tables."""
