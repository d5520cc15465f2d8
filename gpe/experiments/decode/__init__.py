"""Where a patch lies, read from a frozen network (Figure S1)."""
