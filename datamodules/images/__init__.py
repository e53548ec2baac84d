"""Reading of image files and of their sizes, and fonts for text on images."""
