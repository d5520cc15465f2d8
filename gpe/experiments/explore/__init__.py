"""A page to play with: remove channels of one network and see what it loses."""
