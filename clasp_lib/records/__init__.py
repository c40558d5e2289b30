"""Results that a page reads because they take too long to compute on it, and the one command that makes them anew."""
