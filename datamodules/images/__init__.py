"""Reading of image files and of their sizes."""
