"""One file a table or figure of the paper, and the training loop they share."""
