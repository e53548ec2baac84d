"""SSD: backbone, default boxes, loss and the published configurations."""
