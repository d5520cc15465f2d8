"""Networks that say the class of each pixel (section 4.2)."""
