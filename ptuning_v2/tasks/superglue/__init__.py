"""SuperGLUE."""
