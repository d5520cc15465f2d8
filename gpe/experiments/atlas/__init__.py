"""Where on a canvas each channel responds."""
