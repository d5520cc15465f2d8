"""Networks that find pedestrians (supplement S4)."""
