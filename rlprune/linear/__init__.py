"""Linear layers as matrices, the moments of what they read, and refitting them by least squares."""
