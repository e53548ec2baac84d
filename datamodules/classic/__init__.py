"""Published datasets that have their own layout, one module per dataset."""
