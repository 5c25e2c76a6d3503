"""The paper's ablations in miniature: every setting trained on a made-up world, with the paper's numbers beside."""
