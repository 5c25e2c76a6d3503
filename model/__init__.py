"""WOW-Seg: the model, its training and its predictions."""
