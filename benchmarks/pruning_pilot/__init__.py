"""The pilot of channel pruning: a small trained net, pruned without labels or training."""
